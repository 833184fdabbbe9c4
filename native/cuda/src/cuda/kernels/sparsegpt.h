// SparseGPT (arXiv 2301.00774): drops weights and lets those to their right make up for them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/gpu.h"

namespace secateur::gpu {

// Columns whose dropped weights are chosen together.
inline constexpr std::size_t kSparseGptColumns = 128;

// All device memory, row-major.
struct SparseGptTask {
  std::size_t rows;
  std::size_t columns;
  // [columns, columns]: upper Cholesky factor of the inverse of the damped Gram matrix; what is below the diagonal is not read.
  const double* factor;
  // [columns]: 1 where the input is always 0; those weights count as 0.
  const std::uint8_t* dead;
  // [rows]: weights to drop, 0 to columns. Of these, the first c columns have floor(count * c / columns), for every c that ends a block.
  const std::int32_t* counts;
  // [rows, columns], in and out.
  float* weights;
  // [rows, kSparseGptColumns], scratch.
  float* errors;
  // Out. [rows, ceil(columns / 8)]: least significant bit first, 1 = dropped.
  std::uint8_t* mask;
};

// In each block of columns a row drops those with the lowest w² / U[j, j]², equal ones by ascending column. Float32 arithmetic.
cudaError_t prune_with_sparsegpt(const SparseGptTask& task, cudaStream_t stream);

// For whoever compares rows: scores [rows, width] of the block of columns from `first` on, width = min(kSparseGptColumns, columns - first).
cudaError_t score_sparsegpt_block(const SparseGptTask& task, std::size_t first, float* scores, cudaStream_t stream);
// Drops what chosen [rows, ceil(width / 8)] marks in the block, whatever the counts.
cudaError_t prune_sparsegpt_block(const SparseGptTask& task, std::size_t first, const std::uint8_t* chosen, cudaStream_t stream);

}  // namespace secateur::gpu
