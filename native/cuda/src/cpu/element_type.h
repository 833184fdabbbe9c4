// Widening of stored elements to float32.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/shard_layout.h"

namespace secateur::cpu {

// Exact: every bf16 and fp16 value is a float32 value. `source` may be unaligned.
void widen(ElementType type, const std::uint8_t* source, std::size_t count, float* result);

}  // namespace secateur::cpu
