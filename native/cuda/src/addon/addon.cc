// Entry of the addon. ts/load.ts is its only user.
#include <napi.h>

#include <memory>

#include "addon/addon_data.h"
#include "addon/checksums.h"
#include "addon/engine_object.h"
#include "addon/session_object.h"
#include "common/backend_loader.h"

namespace secateur::addon {

namespace {

Napi::Value count_devices(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), count_cuda_devices()); }

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  // The environment owns it from here on.
  AddonData* data = std::make_unique<AddonData>().release();
  env.SetInstanceData(data);
  data->session_class = Napi::Persistent(SessionObject::define(env));
  exports["Engine"] = EngineObject::define(env);
  exports["moveWithChecksum"] = Napi::Function::New<move_with_checksum>(env, "moveWithChecksum");
  exports["chunkChecksums"] = Napi::Function::New<chunk_checksums>(env, "chunkChecksums");
  exports["countCudaDevices"] = Napi::Function::New<count_devices>(env, "countCudaDevices");
  return exports;
}

}  // namespace

}  // namespace secateur::addon

static Napi::Object initialize_addon(Napi::Env env, Napi::Object exports) { return secateur::addon::initialize(env, exports); }

NODE_API_MODULE(secateur_native, initialize_addon)
