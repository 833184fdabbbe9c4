// Results → JavaScript values. Arrays are handed over without a copy.
#pragma once

#include <napi.h>

#include <vector>

#include "secateur/backend.h"

namespace secateur::addon {

Napi::Value to_value(Napi::Env env, std::vector<double> values);
Napi::Value to_value(Napi::Env env, std::vector<float> values);
Napi::Value to_value(Napi::Env env, std::vector<std::uint8_t> bytes);
Napi::Value to_value(Napi::Env env, std::vector<SiteStatistics> sites);
Napi::Value to_value(Napi::Env env, const OutlierCount& count);
Napi::Value to_value(Napi::Env env, std::vector<BlockSensitivity> sensitivities);
Napi::Value to_value(Napi::Env env, AllocatedRows rows);
Napi::Value to_value(Napi::Env env, GramPart part);
Napi::Value to_value(Napi::Env env, RepairedRows rows);
Napi::Value to_value(Napi::Env env, const MemoryPlan& plan);

}  // namespace secateur::addon
