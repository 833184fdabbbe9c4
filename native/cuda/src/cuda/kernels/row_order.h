// Scores of weights and the ascending, stable order of each row.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/gpu.h"

namespace secateur::gpu {

struct RowOrderTask {
  std::size_t rows;
  std::size_t columns;
  // [rows, columns]
  const float* weights;
  // [columns], multiplied with |weight| in float32; null for |weight| alone.
  const float* scales;
  // [rows, columns] each, scratch.
  std::uint32_t* keys;
  std::uint32_t* other_keys;
  std::uint32_t* other_orders;
  // Out. [rows, columns]: columns by ascending score, equal ones by ascending column.
  std::uint32_t* orders;
};

// Weights are finite: non-negative float32 scores order like their bits.
cudaError_t order_rows(const RowOrderTask& task, cudaStream_t stream);

}  // namespace secateur::gpu
