#include "common/rotary_tables.h"

#include <cmath>
#include <numbers>
#include <vector>

namespace secateur {

namespace {

// Of a frequency: 1 where it stays, 1 / factor where it is divided.
float kept_share(const Architecture& a, float frequency) {
  const auto factor = static_cast<float>(a.rotary_factor);
  if (a.rotary_scaling == RotaryScaling::kLinear) return 1.0F / factor;
  const float turns = static_cast<float>(a.original_positions) * frequency / (2 * std::numbers::pi_v<float>);
  const auto low = static_cast<float>(a.low_frequency_factor);
  const auto high = static_cast<float>(a.high_frequency_factor);
  if (turns < low) return 1.0F / factor;
  if (turns > high) return 1.0F;
  const float smooth = (turns - low) / (high - low);
  return (1.0F - smooth) / factor + smooth;
}

// In float32, as the published models compute them.
std::vector<float> frequencies_of(const Architecture& a) {
  std::vector<float> frequencies(a.head_dimension / 2);
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(a.head_dimension);
    frequencies[i] = 1.0F / std::pow(static_cast<float>(a.rotary_base), exponent);
    if (a.rotary_scaling != RotaryScaling::kNone) frequencies[i] *= kept_share(a, frequencies[i]);
  }
  return frequencies;
}

}  // namespace

void fill_rotary_tables(const Architecture& architecture, std::size_t positions, float* cosines, float* sines) {
  const std::vector<float> frequencies = frequencies_of(architecture);
  const std::size_t half = frequencies.size();
  for (std::size_t position = 0; position < positions; ++position) {
    for (std::size_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(position) * frequencies[i];
      cosines[position * half + i] = std::cos(angle);
      sines[position * half + i] = std::sin(angle);
    }
  }
}

}  // namespace secateur
