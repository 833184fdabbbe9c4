// A fixed set of threads that work through the items of one loop at a time.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "secateur/placement.h"

namespace secateur {

class ThreadPool {
 public:
  // `threads` >= 1; the calling thread of parallel_for is the first of them, and its caller's to settle. Throws Error(kResourceExhausted)
  // when the system gives fewer, and what settle_thread throws.
  explicit ThreadPool(std::size_t threads, const Placement& placement = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  std::size_t size() const noexcept { return workers_.size() + 1; }

  // Calls body(item, worker) for every item in [0, items), worker in [0, size()). Items are taken one by one in order, so they should be
  // coarse (≥ 50 µs). Returns when all are done; the first exception stops the rest and is rethrown. Not reentrant.
  void parallel_for(std::size_t items, const std::function<void(std::size_t item, std::size_t worker)>& body);

 private:
  void stop() noexcept;
  void settle(const Placement& placement, std::size_t worker) noexcept;
  void work(std::size_t worker);
  void run_items(std::size_t worker);

  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::vector<std::thread> workers_;
  const std::function<void(std::size_t, std::size_t)>* body_ = nullptr;
  std::size_t items_ = 0;
  std::size_t next_ = 0;
  std::size_t active_ = 0;
  std::size_t generation_ = 0;
  std::exception_ptr failure_;
  bool stopping_ = false;
};

}  // namespace secateur
