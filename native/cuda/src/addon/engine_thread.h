// The thread that computes for an engine: calls wait in a queue and run one after the other, off the JavaScript thread and libuv's pool.
#pragma once

#include <napi.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "secateur/call_context.h"
#include "secateur/placement.h"

namespace secateur::addon {

// Why a call failed, carried from the engine's thread to JavaScript.
struct Failure {
  std::string code;
  std::string message;
  // Negative when unknown.
  double needed_bytes = -1;
  double available_bytes = -1;
};

// The exception being handled, as a failure.
Failure current_failure();
// The JavaScript error of a failure: an Error with `code` and, where known, `neededBytes` and `availableBytes`.
Napi::Error to_error(Napi::Env env, const Failure& failure);

class EngineThread {
 public:
  // Computes on the engine's thread and returns how to make the JavaScript value of the result, on the JavaScript thread.
  using MakeValue = std::function<Napi::Value(Napi::Env)>;
  using Work = std::function<MakeValue(CallContext&)>;

  // `threads`: how many compute side by side, for the timings. The thread is the first of the placement. Throws what settle_thread throws.
  EngineThread(Napi::Env env, std::size_t threads, const Placement& placement);
  // Cancels what waits or runs and waits for the thread.
  ~EngineThread();
  EngineThread(const EngineThread&) = delete;
  EngineThread& operator=(const EngineThread&) = delete;

  // Queues a call. `inputs` are kept alive until it is over. `owner` names calls that cancel_all ends together.
  // Returns { promise, cancel() }; the promise gives { value, timings, queuedNanoseconds }.
  Napi::Object submit(Napi::Env env, const void* owner, std::vector<Napi::Value> inputs, Work work);
  void cancel_all(const void* owner);

 private:
  struct Call;
  struct Settler;
  void run();

  // Shared with results that are still on their way to JavaScript when the engine is closed.
  std::shared_ptr<Settler> settler_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::unique_ptr<Call>> queue_;
  // All that are not over, for cancelling; owned by the queue or by the thread.
  std::vector<Call*> unfinished_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace secateur::addon
