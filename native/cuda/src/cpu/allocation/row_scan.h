// Looks through the scores of a row for those in a range; the scores are made anew at every look, which costs less than keeping them.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "cpu/instruction_set.h"

namespace secateur::allocation {

// Scores as sort keys: |weight| * scale, or |weight| when scales is empty. Non-negative float32 values order like their bits.
inline std::uint32_t score_key(float weight) { return std::bit_cast<std::uint32_t>(std::fabs(weight)); }
inline std::uint32_t score_key(float weight, float scale) { return std::bit_cast<std::uint32_t>(std::fabs(weight) * scale); }

// What the keys of a row are made of. Plain pointers, because the scans may use no inline functions of others.
struct RowScores {
  // [columns]
  const float* weights = nullptr;
  // [columns], or null.
  const float* scales = nullptr;
  std::size_t columns = 0;

  std::uint32_t key(std::size_t column) const {
    return scales == nullptr ? score_key(weights[column]) : score_key(weights[column], scales[column]);
  }
};

// Vectors are written whole: so many elements after the last found may be overwritten.
inline constexpr std::size_t kScanSlack = 16;

struct RowScanFunctions {
  // keys: [columns], out. Returns the largest key of the weights without scales, which is that of a weight that is not finite if one is.
  std::uint32_t (*score)(const RowScores& scores, std::uint32_t* keys);
  // Bucket of each key, counted in steps of 2^shift keys up from `range` below the largest; what is smaller is in the first. Returns up to
  // where that is. buckets: [columns], out.
  std::uint32_t (*bucket)(const std::uint32_t* keys, std::size_t columns, std::uint32_t range, std::uint32_t shift, std::uint16_t* buckets);
  // Writes the columns whose keys are in [first, first + keys), in ascending order, and these keys; returns how many they are. There is
  // room for all and kScanSlack more.
  std::size_t (*collect)(const RowScores& scores, std::uint32_t first, std::uint32_t keys, std::uint32_t* columns,
                         std::uint32_t* found_keys);
  // order: [count], out: the columns by ascending key, equal ones in the order in which they are. No key may lie `reach` or more places
  // from where it belongs. Before keys lie `reach` zeros, and after keys and columns room for kScanSlack more: of keys, `reach` more, none
  // of which is smaller than a key.
  void (*settle)(const std::uint32_t* keys, const std::uint32_t* columns, std::size_t count, std::size_t reach, std::uint32_t* order);
  // bits: ceil(columns / 8), out; 1 where the key is below `key`, or equal to it and the column below `column`.
  void (*mark_below)(const RowScores& scores, std::uint32_t key, std::size_t column, std::uint8_t* bits);
};

// The instruction set must be supported by this processor.
RowScanFunctions row_scan_functions(cpu::InstructionSet instruction_set);

}  // namespace secateur::allocation
