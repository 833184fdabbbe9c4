// Quality curves of rows: the same points as the CPU's (src/cpu/allocation/quality.h), in float64 up to the stored values.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/gpu.h"

namespace secateur::gpu {

// A lane holds up to 32 samples in registers.
inline constexpr std::size_t kMaximumCurveSamples = 1024;

struct CurvePoint {
  float aligned;
  float residual;
};

// All pointers are device memory, all matrices row-major.
struct QualityCurvesTask {
  std::size_t rows;
  std::size_t columns;
  // At most kMaximumCurveSamples.
  std::size_t samples;
  // [rows, columns]
  const float* weights;
  // [rows, columns]: columns by ascending score.
  const std::uint32_t* orders;
  // [columns, samples]
  const float* inputs;
  // [rows, samples]: dense outputs.
  const float* outputs;
  // Out. [rows, columns + 1]
  CurvePoint* points;
  // Out. [rows]
  double* dense_squared_norms;
};

// cudaErrorInvalidValue when there are too many samples.
cudaError_t quality_curves(const QualityCurvesTask& task, cudaStream_t stream);

}  // namespace secateur::gpu
