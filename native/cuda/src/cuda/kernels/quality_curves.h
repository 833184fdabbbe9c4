// Quality curves of rows: the same points as the CPU's, in float64 up to the stored values.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/allocation/quality.h"
#include "cuda/gpu.h"

namespace secateur::gpu {

// More samples than this are swept in panels of as many.
inline constexpr std::size_t kCurvePanelSamples = 1024;

using allocation::CurvePoint;

// Of the part of an output that some weights make: its inner product with the dense output and its squared norm. Loaded
// and stored whole.
struct alignas(16) CurveSums {
  double with_dense;
  double squared_norm;
};

// All pointers are device memory, all matrices row-major.
struct QualityCurvesTask {
  std::size_t rows;
  std::size_t columns;
  std::size_t samples;
  // [rows, columns]
  const float* weights;
  // [rows, columns]: columns by ascending score.
  const std::uint32_t* orders;
  // [columns, samples]
  const float* inputs;
  // [rows, samples]: dense outputs.
  const float* outputs;
  // [rows, columns + 1], scratch: the sums over the panels so far. Null where there is one panel only.
  CurveSums* sums;
  // Out. [rows, columns + 1]
  CurvePoint* points;
  // Out. [rows]
  double* dense_squared_norms;
};

// cudaErrorInvalidValue when there are several panels and no sums.
cudaError_t quality_curves(const QualityCurvesTask& task, cudaStream_t stream);

}  // namespace secateur::gpu
