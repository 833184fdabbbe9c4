// Values of 16 bits that products of a session take in: bfloat16, or float16 with Compute::kF16. What holds them has the bits alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "cuda/kernels/elementwise.h"
#include "secateur/backend.h"

namespace secateur::gpu {

// Whether products take in such values.
inline bool is_narrow(Compute compute) { return compute != Compute::kF32; }

// Whether those are the stored ones.
inline bool takes_as_stored(Compute compute, ElementType type) {
  return (compute == Compute::kBF16 && type == ElementType::kBF16) || (compute == Compute::kF16 && type == ElementType::kF16);
}

// Said where something is NaN or infinite.
inline const char* overflow_hint(Compute compute) {
  return compute == Compute::kF16 ? " With --compute f16 what is larger than 65504 becomes infinite; bf16 and f32 hold it." : "";
}

// Calls visit with the bits as values of their type.
template <class Bits, class Visit>
auto visit_narrow(Compute compute, Bits* bits, const Visit& visit) {
  if constexpr (std::is_const_v<Bits>) {
    return compute == Compute::kF16 ? visit(reinterpret_cast<const float16*>(bits)) : visit(reinterpret_cast<const bfloat16*>(bits));
  } else {
    return compute == Compute::kF16 ? visit(reinterpret_cast<float16*>(bits)) : visit(reinterpret_cast<bfloat16*>(bits));
  }
}

inline cudaError_t narrow(Compute compute, const float* source, std::uint16_t* result, std::size_t size, cudaStream_t stream) {
  return visit_narrow(compute, result, [&](auto* values) { return narrow(source, values, size, stream); });
}

inline cudaError_t widen(Compute compute, const std::uint16_t* source, float* result, std::size_t size, cudaStream_t stream) {
  return visit_narrow(compute, source, [&](const auto* values) { return widen(values, result, size, stream); });
}

}  // namespace secateur::gpu
