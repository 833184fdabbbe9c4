#include "cuda/kernels/sketches.h"

namespace secateur::gpu {
namespace {

// Columns of one block, neighbours in memory, and tiles of tokens that are added up side by side.
constexpr unsigned kColumns = 32;
constexpr unsigned kStrands = kSketchesTogether;
constexpr std::size_t kTileTokens = 256;
// Signs come in words, of which a register holds a half.
constexpr std::size_t kWordTokens = 64;
constexpr std::size_t kHalfWordTokens = 32;

// Of the tiles at hand.
struct TileSums {
  float values[kStrands][kSketchesTogether][kColumns];
};

// A block is 32 columns of one sample. A thread adds up a tile for all sketches, then the tiles for one of them.
__global__ void __launch_bounds__(kColumns* kStrands) sketch_kernel(SketchTask task) {
  SECATEUR_SHARED(TileSums, tile_sums);
  const std::size_t sample = blockIdx.y;
  const unsigned lane = threadIdx.x;
  const unsigned strand = threadIdx.y;
  const std::size_t column = std::size_t{blockIdx.x} * kColumns + lane;
  const bool inside = column < task.columns;
  const std::size_t tiles = (task.tokens + kTileTokens - 1) / kTileTokens;
  const std::size_t words = (task.tokens + kWordTokens - 1) / kWordTokens;
  const float* const inputs = task.inputs + sample * task.tokens * task.columns + column;
  const std::uint64_t* const signs = task.signs + sample * task.sketches * words;
  double total = 0;
  for (std::size_t first = 0; first < tiles; first += kStrands) {
    const std::size_t tile = first + strand;
    if (inside && tile < tiles) {
      float sums[kSketchesTogether] = {};
      const std::size_t end = task.tokens < (tile + 1) * kTileTokens ? task.tokens : (tile + 1) * kTileTokens;
      for (std::size_t token = tile * kTileTokens; token < end;) {
        unsigned negative[kSketchesTogether];
#pragma unroll
        for (unsigned sketch = 0; sketch < kSketchesTogether; ++sketch) {
          const std::uint64_t word = sketch < task.sketches ? signs[sketch * words + token / kWordTokens] : 0;
          negative[sketch] = static_cast<unsigned>(word >> token % kWordTokens);
        }
        const std::size_t last = end < token + kHalfWordTokens ? end : token + kHalfWordTokens;
#pragma unroll 4
        for (; token < last; ++token) {
          const unsigned bits = __float_as_uint(inputs[token * task.columns]);
#pragma unroll
          for (unsigned sketch = 0; sketch < kSketchesTogether; ++sketch) {
            sums[sketch] += __uint_as_float(bits ^ negative[sketch] << 31);
            negative[sketch] >>= 1;
          }
        }
      }
#pragma unroll
      for (unsigned sketch = 0; sketch < kSketchesTogether; ++sketch) tile_sums.values[strand][sketch][lane] = sums[sketch];
    }
    __syncthreads();
    if (inside && strand < task.sketches) {
      for (unsigned other = 0; other < kStrands && first + other < tiles; ++other) {
        total += static_cast<double>(tile_sums.values[other][strand][lane]);
      }
    }
    __syncthreads();
  }
  if (inside && strand < task.sketches) {
    task.sketches_of_samples[(sample * task.sketches + strand) * task.columns + column] = static_cast<float>(total * task.scale);
  }
}

}  // namespace

cudaError_t sketch_inputs(const SketchTask& task, cudaStream_t stream) {
  if (task.samples == 0 || task.columns == 0 || task.sketches == 0) return cudaSuccess;
  if (task.sketches > kSketchesTogether) return cudaErrorInvalidValue;
  const dim3 blocks(static_cast<unsigned>((task.columns + kColumns - 1) / kColumns), static_cast<unsigned>(task.samples));
  return launch(sketch_kernel, blocks, dim3(kColumns, kStrands), 0, stream, task);
}

}  // namespace secateur::gpu
