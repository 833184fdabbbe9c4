#include "addon/engine_thread.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <optional>
#include <utility>

#include "secateur/error.h"

namespace secateur::addon {

using Clock = std::chrono::steady_clock;

namespace {

double nanoseconds_between(Clock::time_point begin, Clock::time_point end) {
  return static_cast<double>(std::chrono::duration_cast<std::chrono::nanoseconds>(end - begin).count());
}

std::string code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "INVALID_ARGUMENT";
    case ErrorCode::kFailedPrecondition:
      return "FAILED_PRECONDITION";
    case ErrorCode::kResourceExhausted:
      return "RESOURCE_EXHAUSTED";
    case ErrorCode::kCancelled:
      return "CANCELLED";
    case ErrorCode::kNonFinite:
      return "NON_FINITE";
    case ErrorCode::kInternal:
      return "INTERNAL";
  }
  return "INTERNAL";
}

Napi::Array to_array(Napi::Env env, const std::vector<PhaseTiming>& phases, std::size_t threads) {
  Napi::Array result = Napi::Array::New(env, phases.size());
  for (std::uint32_t i = 0; i < phases.size(); ++i) {
    Napi::Object timing = Napi::Object::New(env);
    timing["phase"] = Napi::String::New(env, phases[i].phase);
    timing["startNanoseconds"] = Napi::Number::New(env, static_cast<double>(phases[i].start_ns));
    timing["durationNanoseconds"] = Napi::Number::New(env, static_cast<double>(phases[i].busy_ns) / static_cast<double>(threads));
    timing["flops"] = Napi::Number::New(env, phases[i].flops);
    timing["bytes"] = Napi::Number::New(env, phases[i].bytes);
    result[i] = timing;
  }
  return result;
}

}  // namespace

Failure current_failure() {
  try {
    throw;
  } catch (const OutOfMemory& error) {
    return {code_name(error.code()), error.what(), static_cast<double>(error.needed_bytes()), static_cast<double>(error.available_bytes())};
  } catch (const Error& error) {
    return {code_name(error.code()), error.what()};
  } catch (const std::bad_alloc&) {
    return {"RESOURCE_EXHAUSTED", "The system has no memory left."};
  } catch (const std::exception& error) {
    return {"INTERNAL", error.what()};
  } catch (...) {
    return {"INTERNAL", "An exception of an unknown type."};
  }
}

Napi::Error to_error(Napi::Env env, const Failure& failure) {
  Napi::Error error = Napi::Error::New(env, failure.message);
  error.Value()["code"] = Napi::String::New(env, failure.code);
  if (failure.needed_bytes >= 0) error.Value()["neededBytes"] = Napi::Number::New(env, failure.needed_bytes);
  if (failure.available_bytes >= 0) error.Value()["availableBytes"] = Napi::Number::New(env, failure.available_bytes);
  return error;
}

struct EngineThread::Call {
  Call(Napi::Env env, const void* call_owner, Work call_work)
      : owner(call_owner), work(std::move(call_work)), deferred(Napi::Promise::Deferred::New(env)), submitted(Clock::now()) {}

  const void* owner;
  Work work;
  Napi::Promise::Deferred deferred;
  std::vector<Napi::Reference<Napi::Value>> inputs;
  std::shared_ptr<std::atomic<bool>> cancelled = std::make_shared<std::atomic<bool>>(false);
  Clock::time_point submitted;
  double queued_ns = 0;
  MakeValue make_value;
  std::vector<PhaseTiming> phases;
  std::optional<Failure> failure;
};

// Brings finished calls to the JavaScript thread. Everything but `function` is used there only.
struct EngineThread::Settler {
  Settler(Napi::Env env, std::size_t engine_threads)
      : function(Napi::ThreadSafeFunction::New(env, Napi::Function(), "secateur-engine", 0, 1)), threads(engine_threads) {
    function.Unref(env);
  }

  void begin(Napi::Env env) {
    // A process with calls under way does not end; one with an idle engine may.
    if (pending++ == 0) function.Ref(env);
  }
  void settle(Napi::Env env, Call& call);

  Napi::ThreadSafeFunction function;
  std::size_t threads;
  std::size_t pending = 0;
};

EngineThread::EngineThread(Napi::Env env, std::size_t threads, const Placement& placement)
    : settler_(std::make_shared<Settler>(env, threads)) {
  std::promise<void> promise;
  std::future<void> settled = promise.get_future();
  thread_ = std::thread([this, placement, promise = std::move(promise)]() mutable {
    try {
      settle_thread(placement, 0);
    } catch (...) {
      promise.set_exception(std::current_exception());
      return;
    }
    promise.set_value();
    run();
  });
  try {
    settled.get();
  } catch (...) {
    thread_.join();
    settler_->function.Release();
    throw;
  }
}

EngineThread::~EngineThread() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (Call* call : unfinished_) call->cancelled->store(true);
  }
  wake_.notify_one();
  thread_.join();
  settler_->function.Release();
}

Napi::Object EngineThread::submit(Napi::Env env, const void* owner, std::vector<Napi::Value> inputs, Work work) {
  auto call = std::make_unique<Call>(env, owner, std::move(work));
  for (const Napi::Value& input : inputs) call->inputs.push_back(Napi::Persistent(input));
  Napi::Object result = Napi::Object::New(env);
  result["promise"] = call->deferred.Promise();
  result["cancel"] = Napi::Function::New(env, [cancelled = call->cancelled](const Napi::CallbackInfo&) { cancelled->store(true); });
  settler_->begin(env);
  {
    const std::lock_guard lock(mutex_);
    unfinished_.push_back(call.get());
    queue_.push_back(std::move(call));
  }
  wake_.notify_one();
  return result;
}

void EngineThread::cancel_all(const void* owner) {
  const std::lock_guard lock(mutex_);
  for (Call* call : unfinished_) {
    if (call->owner == owner) call->cancelled->store(true);
  }
}

void EngineThread::run() {
  for (;;) {
    std::unique_ptr<Call> call;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      call = std::move(queue_.front());
      queue_.pop_front();
    }
    const Clock::time_point started = Clock::now();
    call->queued_ns = nanoseconds_between(call->submitted, started);
    try {
      CallContext context(call->cancelled.get());
      context.check();
      call->make_value = call->work(context);
      call->phases = context.phases();
    } catch (...) {
      call->failure = current_failure();
    }
    // What the work holds, such as a session, is let go before anybody hears that the call is over.
    call->work = nullptr;
    {
      const std::lock_guard lock(mutex_);
      std::erase(unfinished_, call.get());
    }
    Call* over = call.release();
    const napi_status status = settler_->function.BlockingCall(over, [settler = settler_](Napi::Env env, Napi::Function, Call* done) {
      const std::unique_ptr<Call> owned(done);
      settler->settle(env, *owned);
    });
    // When JavaScript is shutting down nobody waits any more, and its references may not be freed from here.
    if (status != napi_ok) return;
  }
}

void EngineThread::Settler::settle(Napi::Env env, Call& call) {
  const Napi::HandleScope scope(env);
  if (--pending == 0) function.Unref(env);
  if (call.failure) {
    call.deferred.Reject(to_error(env, *call.failure).Value());
    return;
  }
  try {
    Napi::Object result = Napi::Object::New(env);
    result["value"] = call.make_value ? call.make_value(env) : env.Undefined();
    result["timings"] = to_array(env, call.phases, threads);
    result["queuedNanoseconds"] = Napi::Number::New(env, call.queued_ns);
    call.deferred.Resolve(result);
  } catch (const Napi::Error& error) {
    call.deferred.Reject(error.Value());
  } catch (...) {
    call.deferred.Reject(to_error(env, current_failure()).Value());
  }
}

}  // namespace secateur::addon
