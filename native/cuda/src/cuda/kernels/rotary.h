// Rotary position embedding: the pairs (i, i + head_dimension / 2) of every head are rotated by the angles of the token's position.
#pragma once

#include <cstddef>

#include "cuda/gpu.h"

namespace secateur::gpu {

struct RotaryTask {
  std::size_t tokens;
  // Tokens of one sample; positions begin anew with each.
  std::size_t sequence_length;
  std::size_t heads;
  // Even.
  std::size_t head_dimension;
  // [sequence_length, head_dimension / 2]
  const float* cosines;
  const float* sines;
  // [tokens, heads · head_dimension], in place.
  float* states;
};

cudaError_t rotate(const RotaryTask& task, cudaStream_t stream);

}  // namespace secateur::gpu
