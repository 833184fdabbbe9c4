#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

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

extern "C" void secateur_switch_stack(void** save, void* load);

// Saves the registers that a call preserves and takes those of the other stack. It ends with a jump, not a return, because the processor
// predicts returns from the calls of the stack it has left.
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
  jmp *%rcx
.size secateur_switch_stack, .-secateur_switch_stack
)");

namespace secateur::cuda_on_host {

namespace {

constexpr std::size_t kGuardBytes = 4096;

thread_local Fiber* beginning = nullptr;

#if defined(SECATEUR_RACE_CHECK)
// Whether what was done before the switch comes before what is done after it.
constexpr unsigned kOrdered = 0;
constexpr unsigned kUnordered = 1;
#endif

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
  forget_stack();
  munmap(stack_, kStackBytes);
}

void Fiber::forget_stack() {
#if defined(__SANITIZE_ADDRESS__)
  // Frames that were left poison behind, also for whoever gets this memory next.
  __asan_unpoison_memory_region(stack_, kStackBytes);
#endif
}

void Fiber::prepare(void (*entry)(void*), void* argument) {
  entry_ = entry;
  argument_ = argument;
  fake_stack_ = nullptr;
  started_ = false;
  identity_ ^= 1U;
  forget_stack();
#if defined(SECATEUR_RACE_CHECK)
  // New memory has no history of accesses.
  if (mmap(stack_ + kGuardBytes, kStackBytes - kGuardBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
           -1, 0) == MAP_FAILED) {
    throw std::bad_alloc();
  }
#endif
  // Stacks that all begin at the same offset of a page would share few lines of the first-level cache.
  const std::size_t offset = reinterpret_cast<std::uintptr_t>(stack_) / kStackBytes * 13 % 64 * 64;
  void** top = reinterpret_cast<void**>(stack_ + kStackBytes - 64 - offset);
  // As a call leaves it: a return address above six saved registers.
  constexpr std::size_t kSavedRegisters = 6;
  for (std::size_t i = 0; i < kSavedRegisters; ++i) top[i] = nullptr;
  void (*const first)() = [] { begin(beginning); };
  top[kSavedRegisters] = reinterpret_cast<void*>(first);
  top[kSavedRegisters + 1] = nullptr;
  stack_pointer_ = top;
}

void Fiber::begin(Fiber* fiber) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &fiber->resumer_stack_, &fiber->resumer_stack_bytes_);
#endif
  fiber->entry_(fiber->argument_);
  std::abort();
}

void Fiber::resume() {
  beginning = this;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&resumer_fake_stack_, stack_, kStackBytes);
#endif
#if defined(SECATEUR_RACE_CHECK)
  resumer_identity_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(identities_[identity_], started_ ? kUnordered : kOrdered);
#endif
  started_ = true;
  secateur_switch_stack(&resumer_, stack_pointer_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(resumer_fake_stack_, nullptr, nullptr);
#endif
}

void Fiber::suspend() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&fake_stack_, resumer_stack_, resumer_stack_bytes_);
#endif
#if defined(SECATEUR_RACE_CHECK)
  __tsan_switch_to_fiber(resumer_identity_, kUnordered);
#endif
  secateur_switch_stack(&stack_pointer_, resumer_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack_, nullptr, nullptr);
#endif
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
