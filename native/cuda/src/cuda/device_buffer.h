// Memory of the device and pinned memory of the host, owned and counted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "cuda/arena.h"

namespace secateur::gpu {

// What the buffers of one session are taken from. Pinned memory is counted apart from the budget, which is the device's.
struct SessionMemory {
  SessionMemory(MemoryBudget& budget, MemoryBudget& in_use)
      : device(kDeviceMemory, budget, in_use), pinned(kPinnedMemory, pinned_use, pinned_in_use) {}

  // Takes what was planned; more is taken when it is needed. Throws OutOfMemory.
  SessionMemory& reserve(std::uint64_t device_bytes, std::uint64_t pinned_bytes) {
    device.reserve(device_bytes, "the job");
    pinned.reserve(pinned_bytes, "the job");
    return *this;
  }

  MemoryBudget pinned_use{UINT64_MAX};
  MemoryBudget pinned_in_use{UINT64_MAX};
  Arena device;
  Arena pinned;
};

// An uninitialised array in an arena. T is trivial.
template <class T, Arena SessionMemory::*arena>
class ArenaBuffer {
 public:
  ArenaBuffer() = default;
  // Throws OutOfMemory with needed and free bytes, naming `purpose`.
  ArenaBuffer(SessionMemory& memory, std::size_t size, const std::string& purpose, End end = End::kLow) : memory_(&memory), size_(size) {
    if (size != 0) data_ = static_cast<T*>((memory.*arena).take(size * sizeof(T), purpose, end));
  }
  // Does not wait for the device: see Arena.
  ~ArenaBuffer() {
    if (data_ != nullptr) (memory_->*arena).give_back(data_, size_ * sizeof(T));
  }
  ArenaBuffer(ArenaBuffer&& other) noexcept
      : memory_(other.memory_), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  ArenaBuffer& operator=(ArenaBuffer&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  T* data() noexcept { return data_; }
  const T* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }

 private:
  SessionMemory* memory_ = nullptr;
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

// In device memory.
template <class T>
using DeviceBuffer = ArenaBuffer<T, &SessionMemory::device>;

// In pinned host memory, from and to which copies run beside other work.
template <class T>
using PinnedBuffer = ArenaBuffer<T, &SessionMemory::pinned>;

}  // namespace secateur::gpu
