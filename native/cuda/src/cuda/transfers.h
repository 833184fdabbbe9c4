// Copies between the memory of the host and the device's, queued on a stream.
#pragma once

#include <span>
#include <type_traits>

#include "cuda/cuda_error.h"
#include "cuda/stream.h"

namespace secateur::gpu {

// Both sides stay until the stream has come so far. `what` is named in an error.
template <class T>
void upload(std::type_identity_t<std::span<const T>> from, T* to, const Stream& stream, const char* what) {
  if (from.empty()) return;
  check(cudaMemcpyAsync(to, from.data(), from.size_bytes(), cudaMemcpyHostToDevice, stream.get()), what);
}

template <class T>
void download(const T* from, std::type_identity_t<std::span<T>> to, const Stream& stream, const char* what) {
  if (to.empty()) return;
  check(cudaMemcpyAsync(to.data(), from, to.size_bytes(), cudaMemcpyDeviceToHost, stream.get()), what);
}

}  // namespace secateur::gpu
