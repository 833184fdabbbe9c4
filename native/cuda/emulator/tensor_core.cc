// The arithmetic of tensor cores. It touches nothing of the kernel's, so that it is built without sanitizers, for speed.
#include <algorithm>
#include <vector>

#include "tensor_core_on_host.h"

namespace secateur::cuda_on_host {

namespace {

constexpr unsigned kDepth = 16;

// Of all 2^16.
const std::vector<float>& float16_values() {
  static const std::vector<float> values = [] {
    std::vector<float> all(1U << 16);
    for (std::uint32_t bits = 0; bits < all.size(); ++bits) {
      // Exponent and fraction where float32 has them; what that lacks to the exponent is made up for by a product, for subnormal values
      // too.
      const std::uint32_t magnitude = (bits & 0x7fffU) << 13;
      const float value = (bits & 0x7c00U) == 0x7c00U ? __uint_as_float(magnitude | 0x7f800000U) : __uint_as_float(magnitude) * 0x1p112F;
      all[bits] = (bits & 0x8000U) == 0 ? value : -value;
    }
    return all;
  }();
  return values;
}

}  // namespace

std::uint16_t bfloat16_bits(float value) {
  if (value != value) return 0x7fff;
  const std::uint32_t bits = __float_as_uint(value);
  return static_cast<std::uint16_t>((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}

std::uint16_t float16_bits(float value) {
  if (value != value) return 0x7fff;
  const std::uint32_t bits = __float_as_uint(value);
  const std::uint32_t sign = bits >> 16 & 0x8000U;
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude >= 0x477ff000U) return static_cast<std::uint16_t>(sign | 0x7c00U);
  // Adding a power of two rounds to as many places as the result has behind it: ten, or for subnormal values to units of 2^-24.
  const std::uint32_t exponent = std::max(magnitude & 0x7f800000U, 0x38800000U);
  const float ruler = __uint_as_float(exponent + (13U << 23));
  const float rounded = (__uint_as_float(magnitude) + ruler) - ruler;
  if (rounded < 0x1p-14F) return static_cast<std::uint16_t>(sign | static_cast<std::uint32_t>(rounded * 0x1p24F));
  return static_cast<std::uint16_t>(sign | ((__float_as_uint(rounded) - 0x38000000U) >> 13));
}

void add_products(FragmentType type, float (&sums)[4], const LaneValues& fragments, unsigned lane) {
  const std::vector<float>& float16s = float16_values();
  const auto widened = [&](unsigned pair, unsigned index) {
    const unsigned bits = pair >> 16 * index & 0xffffU;
    return type == FragmentType::kF16 ? float16s[bits] : __uint_as_float(bits << 16);
  };
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
        rows[i][k + j] = widened(left.left[i + k / 8 * 2], j);
        columns[i][k + j] = widened(right.right[k / 8], j);
      }
    }
  }
  for (unsigned i = 0; i < 4; ++i) {
    for (unsigned k = 0; k < kDepth; ++k) sums[i] += rows[i / 2][k] * columns[i % 2][k];
  }
}

}  // namespace secateur::cuda_on_host
