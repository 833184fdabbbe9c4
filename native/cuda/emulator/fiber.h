// A function with a stack of its own that can stop in the middle and go on later: one CUDA thread.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

namespace secateur::cuda_on_host {

class Fiber {
 public:
  static constexpr std::size_t kStackBytes = std::size_t{128} * 1024;

  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Makes the next switch to the fiber begin `entry(argument)`, which must never return: it ends with a last suspend. Called by the thread
  // that owns the fiber and all that are switched to from it, never by a fiber. What it did so far comes before what the fiber does.
  void prepare(void (*entry)(void*), void* argument);
  // Runs the fiber, and those that it switches to, until one of them suspends itself. Called by the thread that owns them.
  void resume();
  // Goes on with another fiber, until somebody goes on with this one. Called by the fiber itself.
  void switch_to(Fiber& next);
  // Goes back to resume. Called by the fiber itself.
  void suspend();
  // For the race check, which takes fibers for threads: what the fiber has done so far comes before what the caller does from here on.
  void join();

 private:
  [[noreturn]] static void begin(void* fiber);

  unsigned char* stack_ = nullptr;
  void* stack_pointer_ = nullptr;
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
  // What the address sanitizer keeps for the fiber.
  void* fake_stack_ = nullptr;
  // Under the race check the fiber is another thread whenever it is prepared, of two, so that two uses of it are not in order.
  std::array<void*, 2> identities_{};
  unsigned identity_ = 0;
};

// Fibers that have come to their end, to be used again: they are dear to make.
class FiberPool {
 public:
  std::unique_ptr<Fiber> take();
  void give_back(std::unique_ptr<Fiber> fiber) { fibers_.push_back(std::move(fiber)); }

 private:
  std::vector<std::unique_ptr<Fiber>> fibers_;
};

}  // namespace secateur::cuda_on_host
