// Runs operations on PTX and counts what their kernels ask of memory.
#pragma once

#include "compiled_kernels.h"
#include "device_array.h"

namespace secateur::test {

// Of all launches of an operation.
template <class Operation>
ptx::Traffic traffic_of(const Operation& operation) {
  ptx::Traffic traffic;
  const auto count = [&](const cuda_on_host::Launch& launch, const auto&) { return run_compiled(compiled_kernels(), launch, &traffic); };
  cuda_on_host::LaunchHook before = cuda_on_host::set_launch_hook(count);
  require_success(operation());
  require_success(cudaDeviceSynchronize());
  cuda_on_host::set_launch_hook(std::move(before));
  return traffic;
}

}  // namespace secateur::test
