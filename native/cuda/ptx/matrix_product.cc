#include "matrix_product.h"

#include <bit>

namespace secateur::ptx {
namespace {

constexpr unsigned kRows = 16;
constexpr unsigned kColumns = 8;
constexpr unsigned kDepth = 16;

float widen(std::uint32_t pair, unsigned index) { return std::bit_cast<float>(index == 0 ? pair << 16 : pair & 0xffff0000U); }

}  // namespace

void multiply_accumulate(WarpMatrices& matrices) {
  // A lane holds elements of row lane / 4 (and 8 below it) from column lane % 4 · 2 on; of the right matrix the same, transposed.
  std::array<std::array<float, kDepth>, kRows> left;
  std::array<std::array<float, kDepth>, kColumns> right;
  for (unsigned lane = 0; lane < 32; ++lane) {
    const unsigned row = lane / 4;
    const unsigned depth = lane % 4 * 2;
    for (unsigned i = 0; i < 2; ++i) {
      for (unsigned half = 0; half < 2; ++half) {
        left[row][depth + 8 * half + i] = widen(matrices.left[lane][2 * half], i);
        left[row + 8][depth + 8 * half + i] = widen(matrices.left[lane][2 * half + 1], i);
        right[row][depth + 8 * half + i] = widen(matrices.right[lane][half], i);
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
