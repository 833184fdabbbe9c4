// A function with a stack of its own that can stop in the middle and go on later: one CUDA thread.
#pragma once

#include <cstddef>

namespace secateur::cuda_on_host {

class Fiber {
 public:
  static constexpr std::size_t kStackBytes = std::size_t{128} * 1024;

  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Makes the next resume begin `entry(argument)`, which must never return: it ends with a last suspend. What was on the stack is
  // forgotten.
  void prepare(void (*entry)(void*), void* argument);
  // Runs the fiber until it suspends itself. Called by the thread that owns it, never by a fiber.
  void resume();
  // Goes back to resume. Called by the fiber itself.
  void suspend();

 private:
  [[noreturn]] static void begin(Fiber* fiber);

  unsigned char* stack_ = nullptr;
  void* stack_pointer_ = nullptr;
  void* resumer_ = nullptr;
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
  // What the address sanitizer is told about the two stacks.
  void* fake_stack_ = nullptr;
  void* resumer_fake_stack_ = nullptr;
  const void* resumer_stack_ = nullptr;
  std::size_t resumer_stack_bytes_ = 0;
};

}  // namespace secateur::cuda_on_host
