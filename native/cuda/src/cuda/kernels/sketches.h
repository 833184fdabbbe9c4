// Random-sign sums of the inputs of each sample. Formula: docs/algorithms.md.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/gpu.h"

namespace secateur::gpu {

// Sketches of a sample that are made at once.
inline constexpr unsigned kSketchesTogether = 8;

// All pointers are device memory. At most 65535 samples and kSketchesTogether sketches.
struct SketchTask {
  std::size_t samples;
  std::size_t tokens;
  std::size_t columns;
  std::size_t sketches;
  // What the sums are multiplied with.
  double scale;
  // [samples, tokens, columns]
  const float* inputs;
  // [samples, sketches, ceil(tokens / 64)]: a bit is set where the token is taken away, the lowest bit is the first token's.
  const std::uint64_t* signs;
  // Out. [samples, sketches, columns]: with the bits that the CPU gives them, float32 within tiles of 256 tokens and float64 over these.
  float* sketches_of_samples;
};

cudaError_t sketch_inputs(const SketchTask& task, cudaStream_t stream);

}  // namespace secateur::gpu
