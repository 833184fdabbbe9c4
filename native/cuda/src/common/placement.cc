#include "secateur/placement.h"

#include <string>

#include "secateur/error.h"

#if defined(__linux__)
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#endif

namespace secateur {

namespace {

#if defined(__linux__)

constexpr std::size_t kWordBits = sizeof(unsigned long) * CHAR_BIT;

// A set of one member, as the system calls take it.
std::vector<unsigned long> set_of(std::size_t member) {
  // Far above any machine, so that no mistake asks for a set that fills the memory.
  constexpr std::size_t kMaximum = std::size_t{1} << 16;
  if (member >= kMaximum) {
    throw Error(ErrorCode::kInvalidArgument,
                "Processors and NUMA nodes have numbers below " + std::to_string(kMaximum) + ", not " + std::to_string(member) + ".");
  }
  std::vector<unsigned long> words(member / kWordBits + 1);
  words.back() = 1UL << member % kWordBits;
  return words;
}

void bind_to(std::size_t processor) {
  const std::vector<unsigned long> set = set_of(processor);
  if (syscall(SYS_sched_setaffinity, 0, set.size() * sizeof(unsigned long), set.data()) == 0) return;
  throw Error(ErrorCode::kFailedPrecondition,
              "The system does not let a thread run on processor " + std::to_string(processor) + ": " + std::strerror(errno) + ".");
}

void prefer_memory_of(std::size_t node) {
  const std::vector<unsigned long> set = set_of(node);
  // The kernel reads one bit less than it is told.
  if (syscall(SYS_set_mempolicy, MPOL_PREFERRED, set.data(), set.size() * kWordBits + 1) == 0) return;
  throw Error(ErrorCode::kFailedPrecondition, "The system does not let a thread prefer the memory of NUMA node " + std::to_string(node) +
                                                  ": " + std::strerror(errno) +
                                                  ". A container may need the capability SYS_NICE; --cpus does without.");
}

#else

[[noreturn]] void refuse() {
  throw Error(ErrorCode::kFailedPrecondition, "Threads can be bound to processors and NUMA nodes on Linux only.");
}
void bind_to(std::size_t) { refuse(); }
void prefer_memory_of(std::size_t) { refuse(); }

#endif

}  // namespace

void settle_thread(const Placement& placement, std::size_t thread) {
  if (placement.memory_node) prefer_memory_of(*placement.memory_node);
  if (placement.processors.empty()) return;
  if (thread >= placement.processors.size()) {
    throw Error(ErrorCode::kInvalidArgument,
                "Each thread takes a processor; " + std::to_string(placement.processors.size()) + " are named, which is too few.");
  }
  bind_to(placement.processors[thread]);
}

}  // namespace secateur
