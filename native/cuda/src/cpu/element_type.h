// Stored elements as float32, and back.
#pragma once

#include <cstddef>
#include <cstdint>

#include "secateur/element_type.h"

namespace secateur::cpu {

// Exact: every bf16 and fp16 value is a float32 value. `source` may be unaligned.
void widen(ElementType type, const std::uint8_t* source, std::size_t count, float* result);

// To the nearest, ties to even; what is too large becomes infinite, NaN stays NaN. `result` may be unaligned.
void narrow(ElementType type, const float* source, std::size_t count, std::uint8_t* result);

}  // namespace secateur::cpu
