// Memory that is counted before it is taken.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "secateur/error.h"

namespace secateur {

// Bytes that all sessions of an engine may hold together. Thread-safe.
class MemoryBudget {
 public:
  explicit MemoryBudget(std::uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}

  // Throws OutOfMemory, naming `purpose`, when the bytes do not fit.
  void reserve(std::uint64_t bytes, const std::string& purpose);
  void release(std::uint64_t bytes) noexcept { used_bytes_.fetch_sub(bytes); }
  std::uint64_t used_bytes() const noexcept { return used_bytes_.load(); }
  std::uint64_t limit_bytes() const noexcept { return limit_bytes_; }
  // The most that was in use at a time.
  std::uint64_t peak_bytes() const noexcept { return peak_bytes_.load(); }

 private:
  std::uint64_t limit_bytes_;
  std::atomic<std::uint64_t> used_bytes_{0};
  std::atomic<std::uint64_t> peak_bytes_{0};
};

// A reservation that ends with its scope.
class Reservation {
 public:
  Reservation() = default;
  Reservation(MemoryBudget& budget, std::uint64_t bytes, const std::string& purpose) : budget_(&budget), bytes_(bytes) {
    budget.reserve(bytes, purpose);
  }
  ~Reservation() {
    if (budget_ != nullptr) budget_->release(bytes_);
  }
  Reservation(Reservation&& other) noexcept : budget_(std::exchange(other.budget_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Reservation& operator=(Reservation&& other) noexcept {
    std::swap(budget_, other.budget_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

 private:
  MemoryBudget* budget_ = nullptr;
  std::uint64_t bytes_ = 0;
};

// Uninitialised memory aligned to a cache line, or null when the system has none. What is large comes straight from the system, in huge
// pages where it has them, and goes back at once when it is freed: a process is as large as what it holds.
void* take_memory(std::size_t bytes) noexcept;
void give_back_memory(void* memory, std::size_t bytes) noexcept;

// Gives memory that was freed but kept for later back to the system, where the allocator can.
void trim_freed_memory() noexcept;

// An uninitialised, cache-line aligned array whose bytes are counted. T is trivial.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(MemoryBudget& budget, std::size_t size, const std::string& purpose)
      : reservation_(budget, size * sizeof(T), purpose), size_(size) {
    if (size == 0) return;
    data_ = static_cast<T*>(take_memory(size * sizeof(T)));
    if (data_ == nullptr) throw OutOfMemory("The system has no memory left for " + purpose + ".", size * sizeof(T), 0);
  }
  ~Buffer() { give_back_memory(data_, size_ * sizeof(T)); }
  Buffer(Buffer&& other) noexcept
      : reservation_(std::move(other.reservation_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(reservation_, other.reservation_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  T* data() noexcept { return data_; }
  const T* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  std::span<T> span() noexcept { return {data_, size_}; }
  std::span<const T> span() const noexcept { return {data_, size_}; }
  T& operator[](std::size_t index) noexcept { return data_[index]; }
  const T& operator[](std::size_t index) const noexcept { return data_[index]; }

 private:
  Reservation reservation_;
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace secateur
