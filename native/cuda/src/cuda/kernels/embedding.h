// Hidden states of tokens: rows of the token table, plus those of their positions where positions are learned.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/gpu.h"

namespace secateur::gpu {

enum class StoredType { kF32, kF16, kBF16 };

struct EmbeddingTask {
  std::size_t tokens;
  std::size_t sequence_length;
  std::size_t size;
  // [tokens], each within the table.
  const std::int32_t* ids;
  // [vocabulary, size] as stored.
  const void* table;
  StoredType stored_type;
  // [positions, size] float32 from the first position on, or null.
  const float* positions;
  // Out. [tokens, size]
  float* states;
};

cudaError_t embed(const EmbeddingTask& task, cudaStream_t stream);

}  // namespace secateur::gpu
