#include "addon/engine_object.h"

#include <utility>

#include "addon/addon_data.h"
#include "addon/arguments.h"
#include "addon/results.h"
#include "addon/session_object.h"
#include "common/backend_loader.h"

namespace secateur::addon {

namespace {

struct ChosenBackend {
  std::unique_ptr<Backend> backend;
  // Why this one, for people.
  std::string reason;
};

// `auto` takes CUDA where it works.
ChosenBackend choose_backend(const std::string& wanted, std::size_t threads, std::size_t memory, const Placement& placement) {
  if (wanted == "cpu") return {create_cpu_backend(threads, memory, placement), "asked for"};
  if (wanted != "auto" && wanted != "cuda") {
    throw Error(ErrorCode::kInvalidArgument, "backend must be auto or cpu or cuda, not " + wanted + ".");
  }
  LoadedBackend loaded = load_cuda_backend(memory, threads, placement);
  if (loaded.backend) return {std::move(loaded.backend), loaded.reason};
  if (wanted == "auto") return {create_cpu_backend(threads, memory, placement), "no CUDA: " + loaded.reason};
  throw Error(ErrorCode::kFailedPrecondition, "The cuda backend was asked for, but " + loaded.reason + ". Use --backend cpu or auto.");
}

}  // namespace

Napi::Function EngineObject::define(Napi::Env env) {
  return DefineClass(env, "Engine",
                     {
                         InstanceMethod<&EngineObject::describe>("describe"),
                         InstanceMethod<&EngineObject::memory_used_bytes>("memoryUsedBytes"),
                         InstanceMethod<&EngineObject::plan_session>("planSession"),
                         InstanceMethod<&EngineObject::open_session>("openSession"),
                         InstanceMethod<&EngineObject::measure_product_speed>("measureProductSpeed"),
                         InstanceMethod<&EngineObject::allocate_matrix>("allocateMatrix"),
                         InstanceMethod<&EngineObject::close>("close"),
                     });
}

EngineObject::EngineObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<EngineObject>(info) {
  guarded(info, [&] {
    const Napi::Object options = to_object(info[0], "options");
    const std::size_t threads = to_size(options["threads"], "threads");
    const std::size_t memory = to_size(options["memoryBudgetBytes"], "memoryBudgetBytes");
    const Placement placement = to_placement(options["placement"]);
    ChosenBackend chosen = choose_backend(to_string(options["backend"], "backend"), threads, memory, placement);
    state_ = std::make_shared<EngineState>(info.Env(), std::move(chosen.backend), std::move(chosen.reason), placement);
    return info.Env().Undefined();
  });
}

EngineState& EngineObject::state() {
  if (!state_) throw Error(ErrorCode::kFailedPrecondition, "The engine is closed.");
  return *state_;
}

Napi::Value EngineObject::describe(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const BackendDescription description = state().backend->describe();
    Napi::Object result = Napi::Object::New(info.Env());
    result["backend"] = Napi::String::New(info.Env(), description.backend);
    result["reason"] = Napi::String::New(info.Env(), state().reason);
    result["instructionSet"] = Napi::String::New(info.Env(), description.instruction_set);
    result["gemm"] = Napi::String::New(info.Env(), description.gemm);
    result["threads"] = Napi::Number::New(info.Env(), static_cast<double>(description.threads));
    return result;
  });
}

Napi::Value EngineObject::memory_used_bytes(const Napi::CallbackInfo& info) {
  return guarded(info,
                 [&]() -> Napi::Value { return Napi::Number::New(info.Env(), static_cast<double>(state().backend->memory_used_bytes())); });
}

Napi::Value EngineObject::plan_session(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const Workload workload = to_workload(to_object(info[2], "workload"));
    return to_value(info.Env(), state().backend->plan_session(to_architecture(info[0]), to_precision(info[1]), workload));
  });
}

Napi::Value EngineObject::open_session(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    std::unique_ptr<BackendSession> session =
        state().backend->open_session(to_architecture(info[0]), to_precision(info[1]), to_workload(info[2]));
    const Napi::Object object = info.Env().GetInstanceData<AddonData>()->session_class.New({});
    SessionObject::Unwrap(object)->attach(state_, std::move(session));
    return object;
  });
}

Napi::Value EngineObject::measure_product_speed(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    return state().thread->submit(info.Env(), nullptr, {},
                                  [backend = state_->backend, compute = to_precision(info[0]).compute](CallContext& context) {
                                    const double speed = backend->measure_product_speed(compute, context);
                                    return EngineThread::MakeValue([speed](Napi::Env env) { return Napi::Number::New(env, speed); });
                                  });
  });
}

Napi::Value EngineObject::allocate_matrix(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    if (!info[0].IsTypedArray() || info[0].As<Napi::TypedArray>().TypedArrayType() != napi_float32_array) {
      throw Error(ErrorCode::kInvalidArgument, "weights must be a Float32Array.");
    }
    const Napi::Float32Array weights = info[0].As<Napi::Float32Array>();
    auto statistics = std::make_shared<OwnedStatistics>(to_statistics(info[4]));
    AllocationInput input;
    input.rows = to_size(info[1], "rows");
    input.columns = to_size(info[2], "columns");
    if (input.rows == 0 || input.columns != statistics->mean_squares.size() || weights.ElementLength() / input.rows != input.columns ||
        weights.ElementLength() % input.rows != 0) {
      throw Error(ErrorCode::kInvalidArgument, "weights must have rows x columns values and as many columns as the statistics.");
    }
    input.weights = {weights.Data(), weights.ElementLength()};
    input.target_sparsity = to_number(info[3], "targetSparsity");
    input.samples = statistics->samples;
    input.mean_squares = statistics->mean_squares;
    input.quality_inputs = statistics->quality_inputs;
    return state().thread->submit(info.Env(), nullptr, {info[0]},
                                  [backend = state_->backend, statistics, input, options = to_allocation_options(info[5]),
                                   row_sparsities = to_row_sparsities(info[5])](CallContext& context) mutable {
                                    input.row_sparsities = row_sparsities;
                                    auto rows = std::make_shared<AllocatedRows>(backend->allocate_matrix(input, options, context));
                                    return EngineThread::MakeValue([rows](Napi::Env env) { return to_value(env, std::move(*rows)); });
                                  });
  });
}

// Cancels everything, waits for the engine's thread and frees the sessions; calls that were running are rejected with CANCELLED.
Napi::Value EngineObject::close(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    if (state_) {
      state_->thread.reset();
      state_->sessions.clear();
      state_.reset();
    }
    return info.Env().Undefined();
  });
}

}  // namespace secateur::addon
