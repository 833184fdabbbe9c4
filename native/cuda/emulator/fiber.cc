#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <new>

#include "address_check.h"

#if defined(SECATEUR_RACE_CHECK)
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
}
#endif

#if !defined(__x86_64__)
#error "The emulation switches stacks with x86-64 instructions."
#endif

extern "C" void secateur_switch_stack(void** save, void* load, void* argument);

// Saves the registers that a call preserves and takes those of the other stack; a function that begins there gets the argument. It ends
// with a jump, not a return, because the processor predicts returns from the calls of the stack it has left.
asm(R"(
.text
.globl secateur_switch_stack
.hidden secateur_switch_stack
.type secateur_switch_stack, @function
secateur_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  movq %rdx, %rdi
  jmp *%rcx
.size secateur_switch_stack, .-secateur_switch_stack
)");

namespace secateur::cuda_on_host {

namespace {

constexpr std::size_t kGuardBytes = 4096;

// Where resume was called: the stack that fibers suspend themselves to.
struct Resumer {
  void* stack_pointer = nullptr;
  const void* stack = nullptr;
  std::size_t stack_bytes = 0;
  // Left for a fiber that has not been entered yet.
  bool is_left = false;
  // What the sanitizers keep for it.
  void* fake_stack = nullptr;
  void* identity = nullptr;
};

// Fibers run one at a time, for whoever holds the device.
Resumer resumer;

#if defined(SECATEUR_RACE_CHECK)
// Whether what was done before the switch comes before what is done after it.
constexpr unsigned kOrdered = 0;
constexpr unsigned kUnordered = 1;
#endif

// Around a switch of stacks: what the stack that is left has kept for it, and where the other one lies.
void leave_stack([[maybe_unused]] void** fake_stack, [[maybe_unused]] const void* next, [[maybe_unused]] std::size_t next_bytes) {
#if defined(SECATEUR_ADDRESS_CHECK)
  __sanitizer_start_switch_fiber(fake_stack, next, next_bytes);
#endif
}

void enter_stack([[maybe_unused]] void* fake_stack) {
#if defined(SECATEUR_ADDRESS_CHECK)
  const void* left = nullptr;
  std::size_t left_bytes = 0;
  __sanitizer_finish_switch_fiber(fake_stack, &left, &left_bytes);
  if (!resumer.is_left) return;
  resumer.stack = left;
  resumer.stack_bytes = left_bytes;
  resumer.is_left = false;
#endif
}

void enter_identity([[maybe_unused]] void* identity) {
#if defined(SECATEUR_RACE_CHECK)
  __tsan_switch_to_fiber(identity, kUnordered);
#endif
}

}  // namespace

Fiber::Fiber() {
  void* const memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  stack_ = static_cast<unsigned char*>(memory);
  // A stack that grows beyond its end meets this.
  mprotect(stack_, kGuardBytes, PROT_NONE);
#if defined(SECATEUR_RACE_CHECK)
  for (void*& identity : identities_) identity = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
  // Frames that were left in the middle poison this memory for whoever gets it next.
  allow(stack_, kStackBytes);
  munmap(stack_, kStackBytes);
}

void Fiber::prepare(void (*entry)(void*), void* argument) {
  entry_ = entry;
  argument_ = argument;
  fake_stack_ = nullptr;
  identity_ ^= 1U;
#if defined(SECATEUR_RACE_CHECK)
  // New memory has no history of accesses.
  if (mmap(stack_ + kGuardBytes, kStackBytes - kGuardBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
           -1, 0) == MAP_FAILED) {
    throw std::bad_alloc();
  }
  void* const caller = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(identities_[identity_], kOrdered);
  __tsan_switch_to_fiber(caller, kUnordered);
#endif
  // Stacks that all begin at the same offset of a page would share few lines of the first-level cache.
  const std::size_t offset = reinterpret_cast<std::uintptr_t>(stack_) / kStackBytes * 13 % 64 * 64;
  void** top = reinterpret_cast<void**>(stack_ + kStackBytes - 64 - offset);
  // As a call leaves it: a return address above six saved registers.
  constexpr std::size_t kSavedRegisters = 6;
  for (std::size_t i = 0; i < kSavedRegisters; ++i) top[i] = nullptr;
  top[kSavedRegisters] = reinterpret_cast<void*>(&begin);
  top[kSavedRegisters + 1] = nullptr;
  stack_pointer_ = top;
}

void Fiber::begin(void* fiber) {
  enter_stack(nullptr);
  const auto& self = *static_cast<const Fiber*>(fiber);
  self.entry_(self.argument_);
  std::abort();
}

void Fiber::resume() {
  resumer.is_left = true;
#if defined(SECATEUR_RACE_CHECK)
  resumer.identity = __tsan_get_current_fiber();
#endif
  leave_stack(&resumer.fake_stack, stack_, kStackBytes);
  enter_identity(identities_[identity_]);
  secateur_switch_stack(&resumer.stack_pointer, stack_pointer_, this);
  enter_stack(resumer.fake_stack);
}

void Fiber::switch_to(Fiber& next) {
  leave_stack(&fake_stack_, next.stack_, kStackBytes);
  enter_identity(next.identities_[next.identity_]);
  secateur_switch_stack(&stack_pointer_, next.stack_pointer_, &next);
  enter_stack(fake_stack_);
}

void Fiber::suspend() {
  leave_stack(&fake_stack_, resumer.stack, resumer.stack_bytes);
  enter_identity(resumer.identity);
  secateur_switch_stack(&stack_pointer_, resumer.stack_pointer, nullptr);
  enter_stack(fake_stack_);
}

void Fiber::join() {
#if defined(SECATEUR_RACE_CHECK)
  void* const caller = __tsan_get_current_fiber();
  for (void* const identity : identities_) {
    __tsan_switch_to_fiber(identity, kUnordered);
    __tsan_switch_to_fiber(caller, kOrdered);
  }
#endif
}

std::unique_ptr<Fiber> FiberPool::take() {
  if (fibers_.empty()) return std::make_unique<Fiber>();
  std::unique_ptr<Fiber> fiber = std::move(fibers_.back());
  fibers_.pop_back();
  return fiber;
}

}  // namespace secateur::cuda_on_host
