#include "matrix_product.h"

#include <bit>
#include <cmath>

namespace secateur::ptx {
namespace {

constexpr unsigned kRows = 16;
constexpr unsigned kColumns = 8;
constexpr unsigned kDepth = 16;

float widen_bf16(std::uint32_t bits) { return std::bit_cast<float>(bits << 16); }

float widen_f16(std::uint32_t bits) {
  const unsigned exponent = bits >> 10 & 31;
  const auto fraction = static_cast<float>(bits & 1023);
  float magnitude = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, static_cast<int>(exponent) - 25);
  if (exponent == 31) magnitude = fraction == 0 ? HUGE_VALF : NAN;
  return (bits & 0x8000) == 0 ? magnitude : -magnitude;
}

float widen(ElementType type, std::uint32_t pair, unsigned index) {
  const std::uint32_t bits = pair >> 16 * index & 0xffff;
  return type == ElementType::kF16 ? widen_f16(bits) : widen_bf16(bits);
}

}  // namespace

void multiply_accumulate(ElementType type, WarpMatrices& matrices) {
  // A lane holds elements of row lane / 4 (and 8 below it) from column lane % 4 · 2 on; of the right matrix the same, transposed.
  std::array<std::array<float, kDepth>, kRows> left;
  std::array<std::array<float, kDepth>, kColumns> right;
  for (unsigned lane = 0; lane < 32; ++lane) {
    const unsigned row = lane / 4;
    const unsigned depth = lane % 4 * 2;
    for (unsigned i = 0; i < 2; ++i) {
      for (unsigned half = 0; half < 2; ++half) {
        left[row][depth + 8 * half + i] = widen(type, matrices.left[lane][2 * half], i);
        left[row + 8][depth + 8 * half + i] = widen(type, matrices.left[lane][2 * half + 1], i);
        right[row][depth + 8 * half + i] = widen(type, matrices.right[lane][half], i);
      }
    }
  }
  for (unsigned lane = 0; lane < 32; ++lane) {
    for (unsigned i = 0; i < 4; ++i) {
      float& sum = matrices.sums[lane][i];
      for (unsigned k = 0; k < kDepth; ++k) sum += left[lane / 4 + i / 2 * 8][k] * right[lane % 4 * 2 + i % 2][k];
    }
  }
}

}  // namespace secateur::ptx
