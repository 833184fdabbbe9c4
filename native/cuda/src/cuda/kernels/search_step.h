// Steps of the search for each row's sparsity on quality curves, in the arithmetic and the order of sums of the CPU's search
// (src/cpu/allocation/candidate.cc): equal curves give equal bits.
#pragma once

#include <cstddef>

#include "cpu/allocation/quality.h"
#include "cuda/gpu.h"
#include "cuda/kernels/quality_curves.h"

namespace secateur::gpu {

using allocation::OutputProducts;

// All pointers are device memory.
struct RowCurves {
  std::size_t rows;
  std::size_t columns;
  // [rows, columns + 1]
  const CurvePoint* points;
  // [rows]
  const double* dense_squared_norms;
};

// Sparsities of all rows, and how good the outputs are with them; [rows] each.
struct DeviceCandidate {
  float* sparsities;
  OutputProducts* products;
  double* row_qualities;
};

// Sets the products and the row qualities of the candidate.
cudaError_t measure_rows(const RowCurves& curves, const DeviceCandidate& candidate, cudaStream_t stream);

struct SearchStepTask {
  std::size_t rows;
  float target;
  double learning_rate;
  // Measured.
  DeviceCandidate candidate;
  // Out: its quality, of the whole projection.
  double* quality;
  // In and out: the highest quality so far, and the sparsities [rows] that have it. The candidate's take their place when its quality is
  // higher, or when it is the first.
  bool is_first;
  double* best_quality;
  float* best_sparsities;
  // [rows], scratch.
  double* moves;
  // Out. [rows]: sparsities after one more step. May be the candidate's.
  float* next_sparsities;
};

cudaError_t move_rows(const SearchStepTask& task, cudaStream_t stream);

}  // namespace secateur::gpu
