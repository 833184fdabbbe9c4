// Random bfloat16 values.
#pragma once

#include <cstddef>
#include <vector>

#include "cuda/tensor_core.h"
#include "random_values.h"

namespace secateur::test {

inline std::vector<gpu::bfloat16> narrow_values(std::size_t count, unsigned seed) {
  std::vector<gpu::bfloat16> narrow;
  for (const float value : random_values(count, seed)) narrow.push_back(gpu::narrow(value));
  return narrow;
}

}  // namespace secateur::test
