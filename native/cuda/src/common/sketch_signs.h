// The signs of the random-sign sums that stand for the inputs of all tokens (docs/algorithms.md). A sign depends on its place only, so it
// is the same whoever computes it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace secateur {

// Of a sample of a calibration group.
struct SketchPlace {
  std::uint32_t group = 0;
  std::size_t sample = 0;
  std::size_t sketch = 0;
};

// Tokens whose signs come together.
inline constexpr std::size_t kSignsTogether = 64;

// Bit i is set where the token at position word * kSignsTogether + i is taken away.
std::uint64_t sketch_signs(SketchPlace place, std::size_t word) noexcept;

}  // namespace secateur
