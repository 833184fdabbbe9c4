// class Engine of the addon.
#pragma once

#include <napi.h>

#include <memory>
#include <set>
#include <string>
#include <utility>

#include "addon/engine_thread.h"
#include "secateur/backend.h"

namespace secateur::addon {

// What an engine's sessions share with it. Used on the JavaScript thread only.
struct EngineState {
  EngineState(Napi::Env env, std::unique_ptr<Backend> engine_backend, std::string chosen_because, const Placement& placement)
      : reason(std::move(chosen_because)),
        backend(std::move(engine_backend)),
        thread(std::make_unique<EngineThread>(env, backend->describe().threads, placement)) {}
  std::string reason;
  // Freed from the last to the first: calls use sessions, sessions use the backend.
  std::shared_ptr<Backend> backend;
  std::set<std::shared_ptr<BackendSession>> sessions;
  // Null once the engine is closed.
  std::unique_ptr<EngineThread> thread;
};

class EngineObject : public Napi::ObjectWrap<EngineObject> {
 public:
  static Napi::Function define(Napi::Env env);
  // { backend, threads, memoryBudgetBytes, placement }
  explicit EngineObject(const Napi::CallbackInfo& info);

 private:
  Napi::Value describe(const Napi::CallbackInfo& info);
  Napi::Value memory_used_bytes(const Napi::CallbackInfo& info);
  Napi::Value plan_session(const Napi::CallbackInfo& info);
  Napi::Value open_session(const Napi::CallbackInfo& info);
  Napi::Value measure_product_speed(const Napi::CallbackInfo& info);
  Napi::Value allocate_matrix(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);
  EngineState& state();

  std::shared_ptr<EngineState> state_;
};

// Runs the body and throws its errors as JavaScript errors with a code.
template <class Body>
Napi::Value guarded(const Napi::CallbackInfo& info, Body&& body) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw to_error(info.Env(), current_failure());
  }
}

}  // namespace secateur::addon
