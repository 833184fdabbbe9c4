#include "addon/session_object.h"

#include <utility>

#include "addon/arguments.h"
#include "addon/results.h"

namespace secateur::addon {

namespace {

// The value of a result that is moved into JavaScript once.
template <class Result>
EngineThread::MakeValue hand_over(Result result) {
  auto shared = std::make_shared<Result>(std::move(result));
  return [shared](Napi::Env env) { return to_value(env, std::move(*shared)); };
}

}  // namespace

Napi::Function SessionObject::define(Napi::Env env) {
  return DefineClass(env, "Session",
                     {
                         InstanceMethod<&SessionObject::load_shard>("loadShard"),
                         InstanceMethod<&SessionObject::release_shard>("releaseShard"),
                         InstanceMethod<&SessionObject::embed>("embed"),
                         InstanceMethod<&SessionObject::collect_statistics>("collectStatistics"),
                         InstanceMethod<&SessionObject::propagate>("propagate"),
                         InstanceMethod<&SessionObject::propagate_dense>("propagateDense"),
                         InstanceMethod<&SessionObject::measure_loss>("measureLoss"),
                         InstanceMethod<&SessionObject::last_logits>("lastLogits"),
                         InstanceMethod<&SessionObject::allocate_rows>("allocateRows"),
                         InstanceMethod<&SessionObject::count_outliers>("countOutliers"),
                         InstanceMethod<&SessionObject::measure_sensitivity>("measureSensitivity"),
                         InstanceMethod<&SessionObject::eigenvalues>("eigenvalues"),
                         InstanceMethod<&SessionObject::apply_mask>("applyMask"),
                         InstanceMethod<&SessionObject::collect_with_gram>("collectWithGram"),
                         InstanceMethod<&SessionObject::take_gram_sums>("takeGramSums"),
                         InstanceMethod<&SessionObject::reduce_gram>("reduceGram"),
                         InstanceMethod<&SessionObject::repair_rows>("repairRows"),
                         InstanceMethod<&SessionObject::replace_weights>("replaceWeights"),
                         InstanceMethod<&SessionObject::release_group>("releaseGroup"),
                         InstanceMethod<&SessionObject::save_hidden_states>("saveHiddenStates"),
                         InstanceMethod<&SessionObject::restore_hidden_states>("restoreHiddenStates"),
                         InstanceMethod<&SessionObject::close>("close"),
                     });
}

SessionObject::SessionObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<SessionObject>(info) {}

SessionObject::~SessionObject() {
  if (engine_) engine_->sessions.erase(session_.lock());
}

void SessionObject::attach(std::shared_ptr<EngineState> engine, std::unique_ptr<BackendSession> session) {
  const std::shared_ptr<BackendSession> shared = std::move(session);
  engine->sessions.insert(shared);
  engine_ = std::move(engine);
  session_ = shared;
}

std::shared_ptr<BackendSession> SessionObject::open_session() const {
  std::shared_ptr<BackendSession> session = session_.lock();
  if (!session || !engine_->thread) throw Error(ErrorCode::kFailedPrecondition, "The session is closed.");
  return session;
}

Napi::Value SessionObject::submit(const Napi::CallbackInfo& info, std::vector<Napi::Value> inputs,
                                  std::function<EngineThread::MakeValue(BackendSession&, CallContext&)> work) {
  const std::shared_ptr<BackendSession> session = open_session();
  return engine_->thread->submit(
      info.Env(), session.get(), std::move(inputs),
      [backend = engine_->backend, session, work = std::move(work)](CallContext& context) { return work(*session, context); });
}

Napi::Value SessionObject::load_shard(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    std::vector<Napi::Value> kept;
    std::vector<TensorView> tensors = to_tensors(info[1], kept);
    return submit(info, std::move(kept),
                  [shard = to_string(info[0], "shardId"), tensors = std::move(tensors), window = to_size(info[2], "attentionWindow")](
                      BackendSession& session, CallContext& context) {
                    session.load_shard(shard, tensors, window, context);
                    return EngineThread::MakeValue();
                  });
  });
}

Napi::Value SessionObject::release_shard(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    return submit(info, {}, [shard = to_string(info[0], "shardId")](BackendSession& session, CallContext&) {
      session.release_shard(shard);
      return EngineThread::MakeValue();
    });
  });
}

Napi::Value SessionObject::embed(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    return submit(
        info, {},
        [shard = to_string(info[0], "shardId"), tokens = to_group_tokens(info[1])](BackendSession& session, CallContext& context) {
          session.embed(shard, tokens, context);
          return EngineThread::MakeValue();
        });
  });
}

Napi::Value SessionObject::collect_statistics(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    return submit(info, {},
                  [shard = to_string(info[0], "shardId"), group = to_group_index(info[1]), sites = to_input_sites(info[2]),
                   sketches = to_size(info[3], "sketches")](BackendSession& session, CallContext& context) {
                    return hand_over(session.collect_statistics(shard, group, sites, sketches, context));
                  });
  });
}

Napi::Value SessionObject::propagate(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    return submit(info, {},
                  [shard = to_string(info[0], "shardId"), group = to_group_index(info[1])](BackendSession& session, CallContext& context) {
                    session.propagate(shard, group, context);
                    return EngineThread::MakeValue();
                  });
  });
}

Napi::Value SessionObject::propagate_dense(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    return submit(info, {},
                  [shard = to_string(info[0], "shardId"), group = to_group_index(info[1])](BackendSession& session, CallContext& context) {
                    session.propagate_dense(shard, group, context);
                    return EngineThread::MakeValue();
                  });
  });
}

Napi::Value SessionObject::measure_loss(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    return submit(
        info, {},
        [shard = to_string(info[0], "shardId"), group = to_group_index(info[1]), ranges = to_token_ranges(info[2])](
            BackendSession& session, CallContext& context) { return hand_over(session.measure_loss(shard, group, ranges, context)); });
  });
}

Napi::Value SessionObject::last_logits(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    return submit(info, {},
                  [shard = to_string(info[0], "shardId"), group = to_group_index(info[1])](BackendSession& session, CallContext& context) {
                    return hand_over(session.last_logits(shard, group, context));
                  });
  });
}

Napi::Value SessionObject::allocate_rows(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    auto statistics = std::make_shared<OwnedStatistics>(to_statistics(info[3]));
    return submit(info, {},
                  [shard = to_string(info[0], "shardId"), projection = to_projection(info[1]),
                   target = to_number(info[2], "targetSparsity"), statistics, options = to_allocation_options(info[4]),
                   row_sparsities = to_row_sparsities(info[4])](BackendSession& session, CallContext& context) {
                    AllocationInput input;
                    input.samples = statistics->samples;
                    input.mean_squares = statistics->mean_squares;
                    input.quality_inputs = statistics->quality_inputs;
                    input.target_sparsity = target;
                    input.row_sparsities = row_sparsities;
                    return hand_over(session.allocate_rows(shard, projection, input, options, context));
                  });
  });
}

Napi::Value SessionObject::count_outliers(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    auto inputs = std::make_shared<OwnedInputSquares>(to_input_squares(info[1]));
    return submit(info, {},
                  [shard = to_string(info[0], "shardId"), inputs, threshold = to_number(info[2], "threshold")](BackendSession& session,
                                                                                                               CallContext& context) {
                    return hand_over(session.count_outliers(shard, inputs->views(), threshold, context));
                  });
  });
}

Napi::Value SessionObject::measure_sensitivity(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    auto inputs = std::make_shared<OwnedInputSquares>(to_input_squares(info[2]));
    return submit(info, {},
                  [shard = to_string(info[0], "shardId"), groups = to_group_indices(info[1]), inputs,
                   sparsity = to_number(info[3], "sparsity")](BackendSession& session, CallContext& context) {
                    return hand_over(session.measure_sensitivity(shard, groups, inputs->views(), sparsity, context));
                  });
  });
}

Napi::Value SessionObject::eigenvalues(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    return submit(
        info, {},
        [shard = to_string(info[0], "shardId"), projection = to_projection(info[1])](BackendSession& session, CallContext& context) {
          return hand_over(session.eigenvalues(shard, projection, context));
        });
  });
}

Napi::Value SessionObject::apply_mask(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    return submit(info, {info[2]},
                  [shard = to_string(info[0], "shardId"), projection = to_projection(info[1]), mask = to_bytes(info[2], "mask")](
                      BackendSession& session, CallContext& context) {
                    session.apply_mask(shard, projection, mask, context);
                    return EngineThread::MakeValue();
                  });
  });
}

Napi::Value SessionObject::collect_with_gram(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    return submit(info, {},
                  [shard = to_string(info[0], "shardId"), group = to_group_index(info[1]), sites = to_input_sites(info[2]),
                   grams = to_gram_sites(info[3]), sketches = to_size(info[4], "sketches")](BackendSession& session, CallContext& context) {
                    return hand_over(session.collect_with_gram(shard, group, sites, grams, sketches, context));
                  });
  });
}

Napi::Value SessionObject::take_gram_sums(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    return submit(info, {}, [shard = to_string(info[0], "shardId"), site = to_input_site(info[1])](BackendSession& session, CallContext&) {
      return hand_over(session.take_gram_sums(shard, site));
    });
  });
}

Napi::Value SessionObject::reduce_gram(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    std::vector<Napi::Value> kept;
    std::vector<std::span<const std::uint8_t>> sums = to_byte_arrays(info[2], "sums", kept);
    return submit(
        info, std::move(kept),
        [columns = to_size(info[0], "columns"), drift_rows = to_size(info[1], "driftRows"), sums = std::move(sums)](
            BackendSession& session, CallContext& context) { return hand_over(session.reduce_gram(columns, drift_rows, sums, context)); });
  });
}

Napi::Value SessionObject::repair_rows(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    std::vector<Napi::Value> kept;
    const RepairInput input = to_repair_input(info[2], kept);
    return submit(info, std::move(kept),
                  [shard = to_string(info[0], "shardId"), projection = to_projection(info[1]), input, options = to_repair_options(info[3])](
                      BackendSession& session, CallContext& context) {
                    return hand_over(session.repair_rows(shard, projection, input, options, context));
                  });
  });
}

Napi::Value SessionObject::replace_weights(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    return submit(info, {info[3]},
                  [shard = to_string(info[0], "shardId"), projection = to_projection(info[1]), stored = to_element_type(info[2]),
                   bytes = to_bytes(info[3], "bytes")](BackendSession& session, CallContext& context) {
                    session.replace_weights(shard, projection, stored, bytes, context);
                    return EngineThread::MakeValue();
                  });
  });
}

Napi::Value SessionObject::release_group(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    return submit(info, {}, [group = to_group_index(info[0])](BackendSession& session, CallContext&) {
      session.release_group(group);
      return EngineThread::MakeValue();
    });
  });
}

Napi::Value SessionObject::save_hidden_states(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    return submit(info, {}, [group = to_group_index(info[0])](BackendSession& session, CallContext& context) {
      return hand_over(session.save_hidden_states(group, context));
    });
  });
}

Napi::Value SessionObject::restore_hidden_states(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    return submit(
        info, {info[1]},
        [tokens = to_group_tokens(info[0]), saved = to_bytes(info[1], "saved")](BackendSession& session, CallContext& context) {
          session.restore_hidden_states(tokens, saved, context);
          return EngineThread::MakeValue();
        });
  });
}

// Cancels the session's calls. The promise is kept once its memory is free.
Napi::Value SessionObject::close(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    std::shared_ptr<BackendSession> last = open_session();
    engine_->thread->cancel_all(last.get());
    // The work's own reference is the last one: it is let go on the engine's thread when the calls before it are over.
    engine_->sessions.erase(last);
    session_.reset();
    return engine_->thread->submit(
        info.Env(), nullptr, {}, [backend = engine_->backend, last = std::move(last)](CallContext&) { return EngineThread::MakeValue(); });
  });
}

}  // namespace secateur::addon
