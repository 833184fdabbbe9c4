// Device memory in which the lowest scores of a matrix are found.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/device_buffer.h"
#include "cuda/kernels/lowest_scores.h"

namespace secateur::gpu {

class LowestScoresMemory {
 public:
  static std::uint64_t bytes(std::size_t rows) {
    return block_bytes<std::uint32_t>(kDigits) + block_bytes<std::uint64_t>(1) + block_bytes<std::uint32_t>(1) +
           block_bytes<std::uint32_t>(rows);
  }

  LowestScoresMemory() = default;
  LowestScoresMemory(SessionMemory& memory, std::size_t rows)
      : digits_(memory, kDigits, "the lowest scores"),
        left_(memory, 1, "the lowest scores"),
        key_(memory, 1, "the lowest scores"),
        equal_(memory, rows, "the lowest scores") {}

  // Of the rows from `first` on.
  LowestScores from(std::size_t first = 0) { return {digits_.data(), left_.data(), key_.data(), equal_.data() + first}; }

 private:
  static constexpr std::size_t kDigits = kDigitParts * kDigitValues;

  DeviceBuffer<std::uint32_t> digits_;
  DeviceBuffer<std::uint64_t> left_;
  DeviceBuffer<std::uint32_t> key_;
  DeviceBuffer<std::uint32_t> equal_;
};

}  // namespace secateur::gpu
