// class Session of the addon: one method per method of EngineSession, in the same order.
#pragma once

#include <napi.h>

#include <memory>

#include "addon/engine_object.h"
#include "secateur/backend.h"

namespace secateur::addon {

class SessionObject : public Napi::ObjectWrap<SessionObject> {
 public:
  static Napi::Function define(Napi::Env env);
  // Made by EngineObject::open_session only.
  explicit SessionObject(const Napi::CallbackInfo& info);
  ~SessionObject() override;
  void attach(std::shared_ptr<EngineState> engine, std::unique_ptr<BackendSession> session);

 private:
  Napi::Value load_shard(const Napi::CallbackInfo& info);
  Napi::Value release_shard(const Napi::CallbackInfo& info);
  Napi::Value embed(const Napi::CallbackInfo& info);
  Napi::Value collect_statistics(const Napi::CallbackInfo& info);
  Napi::Value propagate(const Napi::CallbackInfo& info);
  Napi::Value propagate_dense(const Napi::CallbackInfo& info);
  Napi::Value measure_loss(const Napi::CallbackInfo& info);
  Napi::Value last_logits(const Napi::CallbackInfo& info);
  Napi::Value allocate_rows(const Napi::CallbackInfo& info);
  Napi::Value measure_sensitivity(const Napi::CallbackInfo& info);
  Napi::Value count_outliers(const Napi::CallbackInfo& info);
  Napi::Value eigenvalues(const Napi::CallbackInfo& info);
  Napi::Value apply_mask(const Napi::CallbackInfo& info);
  Napi::Value collect_with_gram(const Napi::CallbackInfo& info);
  Napi::Value take_gram_sums(const Napi::CallbackInfo& info);
  Napi::Value reduce_gram(const Napi::CallbackInfo& info);
  Napi::Value repair_rows(const Napi::CallbackInfo& info);
  Napi::Value replace_weights(const Napi::CallbackInfo& info);
  Napi::Value release_group(const Napi::CallbackInfo& info);
  Napi::Value save_hidden_states(const Napi::CallbackInfo& info);
  Napi::Value restore_hidden_states(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  // Throws FailedPrecondition when the session or its engine is closed.
  std::shared_ptr<BackendSession> open_session() const;
  // Queues work with the session, which stays alive until the work is over.
  Napi::Value submit(const Napi::CallbackInfo& info, std::vector<Napi::Value> inputs,
                     std::function<EngineThread::MakeValue(BackendSession&, CallContext&)> work);

  std::shared_ptr<EngineState> engine_;
  std::weak_ptr<BackendSession> session_;
};

}  // namespace secateur::addon
