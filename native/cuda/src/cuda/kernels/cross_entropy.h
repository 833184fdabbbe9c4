// Loss of predicting each token's successor, over logits that come in tiles of the vocabulary, so that they stay few.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/gpu.h"

namespace secateur::gpu {

struct CrossEntropyTask {
  std::size_t tokens;
  // Words of this tile, the first of them, and whether it is the first tile.
  std::size_t words;
  std::size_t first_word;
  // [tokens, words]
  const float* logits;
  // [tokens]: what comes next.
  const std::int32_t* next_ids;
  // [tokens], in and out: logarithm of the sum of exponentials so far; the logit of the next token once its tile has come.
  double* log_sums;
  float* next_logits;
};

// Tiles of a group come in ascending order.
cudaError_t accumulate_cross_entropy(const CrossEntropyTask& task, cudaStream_t stream);

}  // namespace secateur::gpu
