// Masks that no search decides, and how good the outputs are with a mask.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/allocation/quality.h"
#include "cuda/gpu.h"

namespace secateur::gpu {

// All pointers are device memory.
struct PatternTask {
  std::size_t rows;
  std::size_t columns;
  // In every group of `group` neighbouring columns the `dropped` lowest scores go, of equal ones the first; in a shorter last group as many
  // as its share allows, rounded down.
  std::size_t dropped;
  std::size_t group;
  // [rows, columns]
  const float* weights;
  // [columns], or null for 1.
  const float* scales;
  // Out. [rows, ceil(columns / 8)]: least significant bit first, 1 = dropped.
  std::uint8_t* mask;
};

cudaError_t mark_pattern(const PatternTask& task, cudaStream_t stream);

// dense, pruned: device [rows, samples]; products: device [rows], float64 sums in an order that depends on the samples alone.
cudaError_t compare_outputs(const float* dense, const float* pruned, std::size_t rows, std::size_t samples,
                            allocation::OutputProducts* products, cudaStream_t stream);

}  // namespace secateur::gpu
