// A branch-free e^x that compilers can vectorise.
#pragma once

#include <bit>
#include <cstdint>

namespace secateur::cpu {

// e^x = 2^n · e^r with |r| ≤ ln 2 / 2; e^r by a polynomial of degree 6. Arguments above 88.37 give e^88.37, below -87.3 give 0; NaN stays
// NaN.
inline float fast_exponential(float x) {
  constexpr float kMaximum = 88.3762626647949F;
  constexpr float kMinimum = -87.3F;
  constexpr float kLog2E = 1.44269504088896341F;
  constexpr float kLn2High = 0.693359375F;
  constexpr float kLn2Low = -2.12194440e-4F;
  constexpr float kRoundingShift = 12582912.0F;  // 1.5 · 2^23: adding it rounds to a whole number.
  const float clamped = x > kMaximum ? kMaximum : (x < kMinimum ? kMinimum : x);
  const float shifted = clamped * kLog2E + kRoundingShift;
  const float n = shifted - kRoundingShift;
  const float r = (clamped - n * kLn2High) - n * kLn2Low;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1.0F;
  const std::int32_t exponent = std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(kRoundingShift);
  const float scale = std::bit_cast<float>((exponent + 127) << 23);
  return x < kMinimum ? 0.0F : p * scale;
}

}  // namespace secateur::cpu
