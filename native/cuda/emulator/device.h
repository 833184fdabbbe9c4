// The emulated device: its memory, its streams and what is queued on them. Used by one thread at a time, which holds device_mutex().
#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "block.h"
#include "cuda_on_host.h"

namespace secateur::cuda_on_host {

class Event {
 public:
  using Clock = std::chrono::steady_clock;
  // Counts records that are queued and those that have happened; the latest counts.
  std::size_t recorded = 0;
  std::size_t happened = 0;
  // The stream of the latest record.
  Stream* stream = nullptr;
  Clock::time_point time;
};

// Work in order. It is done when somebody waits for it, as late as CUDA allows, so that a wait that is missing shows.
class Stream {
 public:
  std::deque<std::function<cudaError_t()>> queue;
};

class Device {
 public:
  static Device& get();
  std::recursive_mutex& mutex() { return mutex_; }

  cudaError_t allocate(void** pointer, std::size_t bytes);
  cudaError_t free(void* pointer);
  cudaError_t allocate_pinned(void** pointer, std::size_t bytes);
  cudaError_t free_pinned(void* pointer);
  bool holds(const volatile void* pointer, std::size_t bytes) const;
  bool holds_pinned(const volatile void* pointer, std::size_t bytes) const;
  void announce_taken(void* memory, std::size_t bytes);
  void announce_free(void* memory, std::size_t bytes);
  std::size_t free_bytes() const { return limit_bytes_ - used_bytes_; }
  std::size_t total_bytes() const { return limit_bytes_; }
  void set_limit(std::size_t bytes) { limit_bytes_ = bytes; }

  Stream* make_stream();
  cudaError_t destroy_stream(Stream* stream);
  Event* make_event();
  cudaError_t destroy_event(Event* event);
  // Null is the default stream.
  cudaError_t enqueue(Stream* stream, std::function<cudaError_t()> work);
  cudaError_t drain(Stream* stream);
  cudaError_t drain_all();
  // Does the event's latest record at the time of the call, and what is before it.
  cudaError_t drain_until(Event* event, std::size_t record);
  bool knows(const Stream* stream) const { return stream == nullptr || streams_.contains(stream); }
  bool knows(const Event* event) const { return events_.contains(event); }

  cudaError_t run(const Launch& launch, const std::function<void()>& kernel);
  std::vector<std::span<std::byte>> reachable_memory() const;
  // Lets the host touch device memory while it lives; outside of kernels and copies that is an access violation.
  class Unlocked;

  Schedule schedule;
  LaunchHook launch_hook;
  std::string failure;

 private:
  struct Allocation {
    std::size_t bytes;
    std::size_t mapped_bytes;
  };
  Device();
  cudaError_t run_on_fibers(const Launch& launch, const std::function<void()>& kernel);
  void protect(int protection);
  bool is_idle() const;

  std::recursive_mutex mutex_;
  std::map<std::uintptr_t, Allocation> allocations_;
  std::map<std::uintptr_t, std::size_t> pinned_;
  std::map<const Stream*, std::unique_ptr<Stream>> streams_;
  std::map<const Event*, std::unique_ptr<Event>> events_;
  Stream default_stream_;
  std::size_t limit_bytes_;
  std::size_t used_bytes_ = 0;
  int unlocked_ = 0;
};

class Device::Unlocked {
 public:
  explicit Unlocked(Device& device);
  ~Unlocked();
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  Device& device_;
};

}  // namespace secateur::cuda_on_host
