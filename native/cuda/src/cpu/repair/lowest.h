// The lowest magnitudes of a whole matrix.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "secateur/thread_pool.h"

namespace secateur::cpu {

// What a mask drops: magnitudes below a threshold, and the first so many that are equal to it.
struct LowestMagnitudes {
  // Bits of a float32 magnitude, which are ordered as their values are.
  std::uint32_t threshold = 0;
  std::size_t equal = 0;
};

inline std::uint32_t magnitude_bits(float value) { return __builtin_bit_cast(std::uint32_t, value) & 0x7fffffffU; }

// Of finite values; count is at most their number.
LowestMagnitudes find_lowest(std::span<const float> values, std::size_t count, ThreadPool& pool);

// Makes the mask [rows, ceil(columns / 8)] of values [rows, columns], least significant bit first, 1 = dropped.
void mark_lowest(std::span<const float> values, std::size_t columns, const LowestMagnitudes& lowest, ThreadPool& pool, std::uint8_t* mask);

}  // namespace secateur::cpu
