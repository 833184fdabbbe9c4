// mma.m16n8k16 on 16-bit values, the matrices spread over the lanes of a warp as the PTX manual says. Products are exact in float32; a
// sum adds them in ascending order. Hardware has an order of its own: it agrees within rounding, not bit for bit.
// Written apart from the emulator's model of the same instruction, so that each checks the other.
#pragma once

#include <array>
#include <cstdint>

namespace secateur::ptx {

enum class ElementType { kBF16, kF16 };

struct WarpMatrices {
  // [lane][register]: 16 x 16, 16 x 8 and 16 x 8.
  std::array<std::array<std::uint32_t, 4>, 32> left;
  std::array<std::array<std::uint32_t, 2>, 32> right;
  std::array<std::array<float, 4>, 32> sums;
};

// sums += left · right.
void multiply_accumulate(ElementType type, WarpMatrices& matrices);

}  // namespace secateur::ptx
