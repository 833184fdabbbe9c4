// Entry of the addon. ts/load.ts is its only user.
#include <napi.h>

#include <memory>

#include "addon/addon_data.h"
#include "addon/arguments.h"
#include "addon/engine_object.h"
#include "addon/session_object.h"
#include "common/checksum.h"

namespace secateur::addon {

namespace {

// (target, source) → 8 bytes, big-endian. On JavaScript's thread: handing it to another costs as much as it takes.
Napi::Value move_with_checksum(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const std::span<const std::uint8_t> source = to_bytes(info[1], "source");
    if (to_bytes(info[0], "target").size() != source.size()) {
      throw Error(ErrorCode::kInvalidArgument, "target must have as many bytes as source.");
    }
    std::uint64_t checksum = copy_with_checksum(info[0].As<Napi::Uint8Array>().Data(), source);
    Napi::ArrayBuffer memory = info[1].As<Napi::Uint8Array>().ArrayBuffer();
    if (2 * source.size() > memory.ByteLength()) memory.Detach();
    Napi::Uint8Array bytes = Napi::Uint8Array::New(info.Env(), sizeof checksum);
    for (std::size_t i = sizeof checksum; i > 0; --i, checksum >>= 8) bytes[i - 1] = static_cast<std::uint8_t>(checksum & 0xff);
    return bytes;
  });
}

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  // The environment owns it from here on.
  AddonData* data = std::make_unique<AddonData>().release();
  env.SetInstanceData(data);
  data->session_class = Napi::Persistent(SessionObject::define(env));
  exports["Engine"] = EngineObject::define(env);
  exports["moveWithChecksum"] = Napi::Function::New<move_with_checksum>(env, "moveWithChecksum");
  return exports;
}

}  // namespace

}  // namespace secateur::addon

static Napi::Object initialize_addon(Napi::Env env, Napi::Object exports) { return secateur::addon::initialize(env, exports); }

NODE_API_MODULE(secateur_native, initialize_addon)
