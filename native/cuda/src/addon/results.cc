#include "addon/results.h"

#include <memory>
#include <utility>

namespace secateur::addon {

namespace {

// The typed array owns the vector from here on.
template <class Array, class T>
Array hand_over(Napi::Env env, std::vector<T> values) {
  const std::size_t size = values.size();
  if (size == 0) return Array::New(env, 0);
  auto owned = std::make_unique<std::vector<T>>(std::move(values));
  T* data = owned->data();
  const Napi::ArrayBuffer buffer = Napi::ArrayBuffer::New(
      env, data, size * sizeof(T), [](Napi::Env, void*, std::vector<T>* vector) { const std::unique_ptr<std::vector<T>> freed(vector); },
      owned.get());
  // The finalizer owns it now.
  static_cast<void>(owned.release());
  return Array::New(env, size, buffer, 0);
}

Napi::Value number_or_null(Napi::Env env, const auto& value) {
  return value.has_value() ? Napi::Value(Napi::Number::New(env, static_cast<double>(*value))) : Napi::Value(env.Null());
}

Napi::Array to_array(Napi::Env env, const std::vector<MemoryItem>& items) {
  Napi::Array result = Napi::Array::New(env, items.size());
  for (std::uint32_t i = 0; i < items.size(); ++i) {
    Napi::Object item = Napi::Object::New(env);
    item["purpose"] = Napi::String::New(env, items[i].purpose);
    item["bytes"] = Napi::Number::New(env, static_cast<double>(items[i].bytes));
    result[i] = item;
  }
  return result;
}

}  // namespace

Napi::Value to_value(Napi::Env env, const MemoryPlan& plan) {
  Napi::Object result = Napi::Object::New(env);
  result["step"] = Napi::String::New(env, plan.step);
  result["items"] = to_array(env, plan.items);
  result["pinned"] = to_array(env, plan.pinned);
  return result;
}

Napi::Value to_value(Napi::Env env, std::vector<double> values) { return hand_over<Napi::Float64Array>(env, std::move(values)); }

Napi::Value to_value(Napi::Env env, std::vector<float> values) { return hand_over<Napi::Float32Array>(env, std::move(values)); }

Napi::Value to_value(Napi::Env env, std::vector<std::uint8_t> bytes) { return hand_over<Napi::Uint8Array>(env, std::move(bytes)); }

Napi::Value to_value(Napi::Env env, std::vector<SiteStatistics> sites) {
  Napi::Array result = Napi::Array::New(env, sites.size());
  for (std::uint32_t i = 0; i < sites.size(); ++i) {
    Napi::Object site = Napi::Object::New(env);
    site["site"] = Napi::String::New(env, name_of(sites[i].site));
    site["sumsOfSquares"] = hand_over<Napi::Float64Array>(env, std::move(sites[i].sums_of_squares));
    site["qualityInputs"] = hand_over<Napi::Float32Array>(env, std::move(sites[i].quality_inputs));
    result[i] = site;
  }
  return result;
}

Napi::Value to_value(Napi::Env env, const OutlierCount& count) {
  Napi::Object result = Napi::Object::New(env);
  result["weights"] = Napi::Number::New(env, static_cast<double>(count.weights));
  result["outliers"] = Napi::Number::New(env, static_cast<double>(count.outliers));
  result["meanScore"] = Napi::Number::New(env, count.mean_score);
  return result;
}

Napi::Value to_value(Napi::Env env, std::vector<BlockSensitivity> sensitivities) {
  Napi::Array result = Napi::Array::New(env, sensitivities.size());
  for (std::uint32_t i = 0; i < sensitivities.size(); ++i) {
    Napi::Object sensitivity = Napi::Object::New(env);
    sensitivity["outputEnergy"] = Napi::Number::New(env, sensitivities[i].output_energy);
    sensitivity["errors"] = hand_over<Napi::Float64Array>(env, std::move(sensitivities[i].errors));
    result[i] = sensitivity;
  }
  return result;
}

Napi::Value to_value(Napi::Env env, AllocatedRows rows) {
  Napi::Object result = Napi::Object::New(env);
  result["baselineQuality"] = Napi::Number::New(env, rows.baseline_quality);
  result["bestQuality"] = Napi::Number::New(env, rows.best_quality);
  result["learningRate"] = number_or_null(env, rows.learning_rate);
  result["bestStep"] = number_or_null(env, rows.best_step);
  result["varianceBefore"] = Napi::Number::New(env, rows.variance_before);
  result["varianceAfter"] = Napi::Number::New(env, rows.variance_after);
  result["dropped"] = Napi::Number::New(env, static_cast<double>(rows.dropped));
  result["rowSparsities"] = hand_over<Napi::Float32Array>(env, std::move(rows.row_sparsities));
  result["droppedPerRow"] = hand_over<Napi::Int32Array>(env, std::move(rows.dropped_per_row));
  result["mask"] = hand_over<Napi::Uint8Array>(env, std::move(rows.mask));
  Napi::Array steps = Napi::Array::New(env, rows.steps.size());
  for (std::uint32_t i = 0; i < rows.steps.size(); ++i) {
    Napi::Object step = Napi::Object::New(env);
    step["learningRate"] = Napi::Number::New(env, rows.steps[i].learning_rate);
    step["step"] = Napi::Number::New(env, rows.steps[i].step);
    step["quality"] = Napi::Number::New(env, rows.steps[i].quality);
    steps[i] = step;
  }
  result["steps"] = steps;
  return result;
}

Napi::Value to_value(Napi::Env env, GramPart part) {
  Napi::Object result = Napi::Object::New(env);
  result["groups"] = hand_over<Napi::Uint32Array>(env, std::move(part.groups));
  result["sums"] = hand_over<Napi::Uint8Array>(env, std::move(part.sums));
  result["heldOut"] = hand_over<Napi::Uint8Array>(env, std::move(part.held_out));
  result["drift"] = hand_over<Napi::Uint8Array>(env, std::move(part.drift));
  return result;
}

Napi::Value to_value(Napi::Env env, RepairedRows rows) {
  Napi::Object result = Napi::Object::New(env);
  result["weights"] = hand_over<Napi::Uint8Array>(env, std::move(rows.weights));
  result["mask"] = hand_over<Napi::Uint8Array>(env, std::move(rows.mask));
  result["droppedPerRow"] = hand_over<Napi::Int32Array>(env, std::move(rows.dropped_per_row));
  result["dropped"] = Napi::Number::New(env, static_cast<double>(rows.dropped));
  result["swaps"] = Napi::Number::New(env, static_cast<double>(rows.swaps));
  result["errorBeforeSwaps"] = Napi::Number::New(env, rows.error_before_swaps);
  result["errorBefore"] = Napi::Number::New(env, rows.error_before);
  result["errorAfter"] = Napi::Number::New(env, rows.error_after);
  result["damping"] = Napi::Number::New(env, rows.damping);
  return result;
}

}  // namespace secateur::addon
