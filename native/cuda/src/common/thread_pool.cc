#include "secateur/thread_pool.h"

#include <string>
#include <system_error>

#include "secateur/error.h"

namespace secateur {

ThreadPool::ThreadPool(std::size_t threads, const Placement& placement) {
  workers_.reserve(threads - 1);
  active_ = threads - 1;
  try {
    for (std::size_t worker = 1; worker < threads; ++worker) {
      workers_.emplace_back([this, worker, &placement] {
        settle(placement, worker);
        work(worker);
      });
    }
  } catch (const std::system_error& error) {
    stop();
    throw Error(ErrorCode::kResourceExhausted, "The system gives this process no more than " + std::to_string(size()) + " of " +
                                                   std::to_string(threads) + " threads (" + error.what() + "); ask for fewer.");
  }
  {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return active_ == 0; });
  }
  if (failure_) {
    stop();
    std::rethrow_exception(failure_);
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() noexcept {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::parallel_for(std::size_t items, const std::function<void(std::size_t, std::size_t)>& body) {
  if (items == 0) return;
  {
    const std::lock_guard lock(mutex_);
    body_ = &body;
    items_ = items;
    next_ = 0;
    failure_ = nullptr;
    active_ = workers_.size();
    ++generation_;
  }
  wake_.notify_all();
  run_items(0);
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return active_ == 0; });
  body_ = nullptr;
  if (failure_) std::rethrow_exception(failure_);
}

void ThreadPool::settle(const Placement& placement, std::size_t worker) noexcept {
  std::exception_ptr failure;
  try {
    settle_thread(placement, worker);
  } catch (...) {
    failure = std::current_exception();
  }
  const std::lock_guard lock(mutex_);
  if (failure) failure_ = failure;
  --active_;
  done_.notify_one();
}

void ThreadPool::work(std::size_t worker) {
  std::size_t seen = 0;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stopping_ || generation_ != seen; });
      if (stopping_) return;
      seen = generation_;
    }
    run_items(worker);
    {
      const std::lock_guard lock(mutex_);
      --active_;
    }
    done_.notify_one();
  }
}

void ThreadPool::run_items(std::size_t worker) {
  for (;;) {
    std::size_t item = 0;
    {
      const std::lock_guard lock(mutex_);
      if (failure_ || next_ >= items_) return;
      item = next_++;
    }
    try {
      (*body_)(item, worker);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
  }
}

}  // namespace secateur
