// Random values of 16 bits.
#pragma once

#include <cstddef>
#include <vector>

#include "cuda/tensor_core.h"
#include "random_values.h"

namespace secateur::test {

template <class Narrow>
std::vector<Narrow> narrow_values(std::size_t count, unsigned seed) {
  std::vector<Narrow> narrow;
  for (const float value : random_values(count, seed)) narrow.push_back(gpu::narrow<Narrow>(value));
  return narrow;
}

}  // namespace secateur::test
