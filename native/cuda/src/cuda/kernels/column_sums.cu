#include "cuda/kernels/column_sums.h"

namespace secateur::gpu {
namespace {

// Columns of one block, neighbours in memory, and the interleaved strands of tokens that each column is cut into.
constexpr unsigned kColumns = 32;
constexpr unsigned kStrands = 16;
// Tokens of a strand that are on their way at once: few columns make few blocks, which have to keep the memory busy.
constexpr unsigned kTokensAtOnce = 8;

struct StrandSums {
  double values[kStrands][kColumns];
};

__device__ double square(float value) { return static_cast<double>(value) * static_cast<double>(value); }

// A block is 32 columns of one sample.
__global__ void __launch_bounds__(kColumns* kStrands)
    sum_squares(const float* all_inputs, std::size_t tokens, std::size_t columns, double* all_sums) {
  SECATEUR_SHARED(StrandSums, strands);
  const std::size_t sample = blockIdx.y;
  const float* const inputs = all_inputs + sample * tokens * columns;
  double* const sums = all_sums + sample * columns;
  const unsigned lane = threadIdx.x;
  const unsigned strand = threadIdx.y;
  const std::size_t column = std::size_t{blockIdx.x} * kColumns + lane;
  double sum = 0;
  if (column < columns) {
    std::size_t token = strand;
    for (; token + (kTokensAtOnce - 1) * kStrands < tokens; token += kTokensAtOnce * kStrands) {
      float values[kTokensAtOnce];
#pragma unroll
      for (unsigned i = 0; i < kTokensAtOnce; ++i) values[i] = inputs[(token + i * kStrands) * columns + column];
#pragma unroll
      for (unsigned i = 0; i < kTokensAtOnce; ++i) sum += square(values[i]);
    }
    for (; token < tokens; token += kStrands) sum += square(inputs[token * columns + column]);
  }
  strands.values[strand][lane] = sum;
  __syncthreads();
  if (strand == 0 && column < columns) {
    for (unsigned other = 1; other < kStrands; ++other) sum += strands.values[other][lane];
    sums[column] = sum;
  }
}

}  // namespace

cudaError_t column_sums_of_squares(const ColumnSumsTask& task, cudaStream_t stream) {
  if (task.samples == 0 || task.columns == 0) return cudaSuccess;
  const dim3 blocks(static_cast<unsigned>((task.columns + kColumns - 1) / kColumns), static_cast<unsigned>(task.samples));
  return launch(sum_squares, blocks, dim3(kColumns, kStrands), 0, stream, task.inputs, task.tokens, task.columns, task.sums);
}

}  // namespace secateur::gpu
