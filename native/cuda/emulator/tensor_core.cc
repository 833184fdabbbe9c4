// The arithmetic of tensor cores. It touches nothing of the kernel's, so that it is built without sanitizers, for speed.
#include "tensor_core_on_host.h"

namespace secateur::cuda_on_host {

namespace {

constexpr unsigned kDepth = 16;

float widen_half(unsigned pair, unsigned index) { return __uint_as_float(index == 0 ? pair << 16 : pair & 0xffff0000U); }

}  // namespace

std::uint16_t bfloat16_bits(float value) {
  if (value != value) return 0x7fff;
  const std::uint32_t bits = __float_as_uint(value);
  return static_cast<std::uint16_t>((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}

void add_products(float (&sums)[4], const LaneValues& fragments, unsigned lane) {
  // The two rows and the two columns whose products this lane sums up.
  float rows[2][kDepth];
  float columns[2][kDepth];
  for (unsigned k = 0; k < kDepth; k += 2) {
    // A register holds two neighbours. Of the left, registers 0 and 1 are of the first half of the depth, 2 and 3 of the second; of the
    // right, 0 and 1.
    const unsigned holder = k % 8 / 2;
    const auto left = value_of<MatrixFragments>(fragments, lane / 4 * 4 + holder);
    for (unsigned i = 0; i < 2; ++i) {
      const auto right = value_of<MatrixFragments>(fragments, (lane % 4 * 2 + i) * 4 + holder);
      for (unsigned j = 0; j < 2; ++j) {
        rows[i][k + j] = widen_half(left.left[i + k / 8 * 2], j);
        columns[i][k + j] = widen_half(right.right[k / 8], j);
      }
    }
  }
  for (unsigned i = 0; i < 4; ++i) {
    for (unsigned k = 0; k < kDepth; ++k) sums[i] += rows[i / 2][k] * columns[i % 2][k];
  }
}

}  // namespace secateur::cuda_on_host
