// What the thread sanitizer is told about fibers, so that it finds races of a kernel: accesses to the same memory that no barrier orders.
// It counts fibers as threads and knows no order among them but what is given here. Nothing of this is there without SECATEUR_RACE_CHECK.
//
// With it the emulation itself is built without -fsanitize=thread and only kernels and tests with it. The emulation's own accesses then go
// unseen, except for what the sanitizer intercepts (memcpy, malloc); RaceCheckPaused hides those too.
#pragma once

#include <cstddef>

#if defined(SECATEUR_RACE_CHECK)
extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void __tsan_read_range(void* address, unsigned long bytes);
void __tsan_write_range(void* address, unsigned long bytes);
void __tsan_ignore_thread_begin();
void __tsan_ignore_thread_end();
}
#endif

namespace secateur::cuda_on_host {

#if defined(SECATEUR_RACE_CHECK)

inline constexpr bool kRaceCheck = true;

// Orders what some fibers did before they released it before what others do after they acquired it, of the same turn. Turns alternate: a
// fiber may release the next meeting before another has acquired this one.
class Meeting {
 public:
  void release(unsigned turn) { __tsan_release(&turns_[turn]); }
  void acquire(unsigned turn) { __tsan_acquire(&turns_[turn]); }

 private:
  char turns_[2] = {};
};

inline void check_read(const void* address, std::size_t bytes) { __tsan_read_range(const_cast<void*>(address), bytes); }
inline void check_write(void* address, std::size_t bytes) { __tsan_write_range(address, bytes); }

class RaceCheckPaused {
 public:
  RaceCheckPaused() { __tsan_ignore_thread_begin(); }
  ~RaceCheckPaused() { __tsan_ignore_thread_end(); }
  RaceCheckPaused(const RaceCheckPaused&) = delete;
  RaceCheckPaused& operator=(const RaceCheckPaused&) = delete;
};

#else

inline constexpr bool kRaceCheck = false;

class Meeting {
 public:
  void release(unsigned) {}
  void acquire(unsigned) {}
};

inline void check_read(const void*, std::size_t) {}
inline void check_write(void*, std::size_t) {}

class RaceCheckPaused {
 public:
  // Not trivial, so that nobody is warned of a variable that is not used.
  RaceCheckPaused() {}
};

#endif

}  // namespace secateur::cuda_on_host
