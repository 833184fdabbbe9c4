// Widening of stored elements to float32.
#pragma once

#include <cstddef>
#include <cstdint>

#include "secateur/backend.h"

namespace secateur::cpu {

std::size_t bytes_of(ElementType type);

// Exact: every bf16 and fp16 value is a float32 value. `source` may be unaligned.
void widen(ElementType type, const std::uint8_t* source, std::size_t count, float* result);

}  // namespace secateur::cpu
