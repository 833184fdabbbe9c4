// What the addon keeps for one JavaScript environment.
#pragma once

#include <napi.h>

namespace secateur::addon {

struct AddonData {
  Napi::FunctionReference session_class;
};

}  // namespace secateur::addon
