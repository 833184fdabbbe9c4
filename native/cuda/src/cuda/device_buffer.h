// Memory of the device and pinned memory of the host, owned and counted.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <string>
#include <utility>

#include "cuda/cuda_error.h"
#include "secateur/memory_budget.h"

namespace secateur::gpu {

// An uninitialised array in device memory. T is trivial.
template <class T>
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  // Throws OutOfMemory with needed and free bytes, naming `purpose`.
  DeviceBuffer(MemoryBudget& budget, std::size_t size, const std::string& purpose)
      : reservation_(budget, size * sizeof(T), purpose), size_(size) {
    if (size == 0) return;
    void* memory = nullptr;
    const cudaError_t error = cudaMalloc(&memory, size * sizeof(T));
    if (error == cudaErrorMemoryAllocation) {
      // The runtime remembers the error until somebody asks.
      static_cast<void>(cudaGetLastError());
      std::size_t free_bytes = 0;
      std::size_t total_bytes = 0;
      check(cudaMemGetInfo(&free_bytes, &total_bytes), "asking for free memory");
      throw OutOfMemory("The GPU has no room for " + purpose + ": " + std::to_string(size * sizeof(T)) + " bytes needed, " +
                            std::to_string(free_bytes) + " free.",
                        size * sizeof(T), free_bytes);
    }
    check(error, "allocating memory");
    data_ = static_cast<T*>(memory);
  }
  // Waits until the device no longer uses the memory.
  ~DeviceBuffer() { static_cast<void>(cudaFree(data_)); }
  DeviceBuffer(DeviceBuffer&& other) noexcept
      : reservation_(std::move(other.reservation_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(reservation_, other.reservation_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  T* data() noexcept { return data_; }
  const T* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }

 private:
  Reservation reservation_;
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

// An uninitialised array in pinned host memory, from and to which copies run beside other work.
template <class T>
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  explicit PinnedBuffer(std::size_t size) : size_(size) {
    void* memory = nullptr;
    check(cudaMallocHost(&memory, size * sizeof(T)), "allocating pinned memory");
    data_ = static_cast<T*>(memory);
  }
  ~PinnedBuffer() { static_cast<void>(cudaFreeHost(data_)); }
  PinnedBuffer(PinnedBuffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  T* data() noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace secateur::gpu
