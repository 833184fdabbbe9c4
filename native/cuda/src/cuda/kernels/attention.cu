#include "cuda/gpu.h"
#include "cuda/kernels/attention.h"

namespace secateur::gpu {
namespace {

// A block has kQueries queries, a warp kWarpQueries of them; keys come in tiles of one for each lane.
constexpr unsigned kWarps = 4;
constexpr unsigned kWarpQueries = 8;
constexpr unsigned kQueries = kWarps * kWarpQueries;
constexpr unsigned kThreads = kWarps * kWarpLanes;
constexpr unsigned kKeys = kWarpLanes;

// LaneDimensions: values of a head that each lane adds up.
template <unsigned LaneDimensions>
struct Tiles {
  static constexpr unsigned kWidth = LaneDimensions * kWarpLanes;
  float queries[kQueries][kWidth];
  // Lanes read a column of keys: a row more than a whole number of banks apart.
  float keys[kKeys][kWidth + 1];
  float values[kKeys][kWidth];
  // Weights of the keys for each query, written and read by one warp.
  float weights[kQueries][kKeys];
};

template <unsigned LaneDimensions>
__global__ void __launch_bounds__(kThreads) attend_kernel(AttentionTask task) {
  using HeadTiles = Tiles<LaneDimensions>;
  SECATEUR_DYNAMIC_SHARED(HeadTiles, tiles);
  const unsigned lane = threadIdx.x % kWarpLanes;
  const unsigned warp = threadIdx.x / kWarpLanes;
  const std::size_t tiles_per_head = (task.sequence_length + kQueries - 1) / kQueries;
  // The last queries have the most keys: they begin first.
  const std::size_t first_query = (tiles_per_head - 1 - blockIdx.x % tiles_per_head) * kQueries;
  const std::size_t head = blockIdx.x / tiles_per_head % task.heads;
  const std::size_t sample = blockIdx.x / tiles_per_head / task.heads;
  const std::size_t size = task.head_dimension;
  const std::size_t query_width = task.heads * size;
  const std::size_t key_width = task.key_value_heads * size;
  const std::size_t first_token = sample * task.sequence_length;
  const std::size_t key_offset = first_token * key_width + head / (task.heads / task.key_value_heads) * size;
  const std::size_t query_offset = first_token * query_width + head * size;
  const float scale = 1.0F / sqrtf(static_cast<float>(size));

  for (unsigned i = threadIdx.x; i < kQueries * HeadTiles::kWidth; i += kThreads) {
    const unsigned query = i / HeadTiles::kWidth;
    const unsigned dimension = i % HeadTiles::kWidth;
    const bool inside = first_query + query < task.sequence_length && dimension < size;
    tiles->queries[query][dimension] = inside ? scale * task.queries[query_offset + (first_query + query) * query_width + dimension] : 0.0F;
  }

  // Of each query: the largest score so far, the sum of exponentials relative to it, and the sum of values weighted by them.
  float maxima[kWarpQueries];
  float weights[kWarpQueries];
  float sums[kWarpQueries][LaneDimensions] = {};
#pragma unroll
  for (unsigned q = 0; q < kWarpQueries; ++q) {
    maxima[q] = -INFINITY;
    weights[q] = 0.0F;
  }

  const std::size_t last_query = first_query + kQueries < task.sequence_length ? first_query + kQueries : task.sequence_length;
  for (std::size_t first_key = 0; first_key < last_query; first_key += kKeys) {
    // The tile before is no longer read.
    __syncthreads();
    for (unsigned i = threadIdx.x; i < kKeys * HeadTiles::kWidth; i += kThreads) {
      const unsigned key = i / HeadTiles::kWidth;
      const unsigned dimension = i % HeadTiles::kWidth;
      const bool inside = first_key + key < task.sequence_length && dimension < size;
      const std::size_t place = key_offset + (first_key + key) * key_width + dimension;
      tiles->keys[key][dimension] = inside ? task.keys[place] : 0.0F;
      tiles->values[key][dimension] = inside ? task.values[place] : 0.0F;
    }
    __syncthreads();

    float scores[kWarpQueries] = {};
    for (unsigned dimension = 0; dimension < size; ++dimension) {
      const float key = tiles->keys[lane][dimension];
#pragma unroll
      for (unsigned q = 0; q < kWarpQueries; ++q) {
        scores[q] = fmaf(tiles->queries[warp * kWarpQueries + q][dimension], key, scores[q]);
      }
    }
#pragma unroll
    for (unsigned q = 0; q < kWarpQueries; ++q) {
      const std::size_t query = first_query + warp * kWarpQueries + q;
      if (first_key + lane > query) scores[q] = -INFINITY;
      const float maximum = fmaxf(maxima[q], warp_maximum(scores[q]));
      // No key of this tile or of those before is visible yet: only for tiles after the query, which add nothing.
      const float shift = maximum == -INFINITY ? 0.0F : maximum;
      const float correction = expf(maxima[q] - shift);
      scores[q] = expf(scores[q] - shift);
      maxima[q] = maximum;
      weights[q] = weights[q] * correction + warp_sum(scores[q]);
      tiles->weights[warp * kWarpQueries + q][lane] = scores[q];
#pragma unroll
      for (unsigned d = 0; d < LaneDimensions; ++d) sums[q][d] *= correction;
    }
    __syncwarp();
    for (unsigned key = 0; key < kKeys; ++key) {
      float value[LaneDimensions];
#pragma unroll
      for (unsigned d = 0; d < LaneDimensions; ++d) value[d] = tiles->values[key][d * kWarpLanes + lane];
#pragma unroll
      for (unsigned q = 0; q < kWarpQueries; ++q) {
        const float weight = tiles->weights[warp * kWarpQueries + q][key];
#pragma unroll
        for (unsigned d = 0; d < LaneDimensions; ++d) sums[q][d] = fmaf(weight, value[d], sums[q][d]);
      }
    }
  }

#pragma unroll
  for (unsigned q = 0; q < kWarpQueries; ++q) {
    const std::size_t query = first_query + warp * kWarpQueries + q;
    if (query >= task.sequence_length) continue;
#pragma unroll
    for (unsigned d = 0; d < LaneDimensions; ++d) {
      const std::size_t dimension = d * kWarpLanes + lane;
      if (dimension < size) task.result[query_offset + query * query_width + dimension] = sums[q][d] / weights[q];
    }
  }
}

template <unsigned LaneDimensions>
cudaError_t launch_attention(const AttentionTask& task, cudaStream_t stream) {
  const std::size_t tiles = (task.sequence_length + kQueries - 1) / kQueries;
  const dim3 grid(static_cast<unsigned>(tiles * task.heads * task.samples));
  return launch(attend_kernel<LaneDimensions>, grid, dim3(kThreads), sizeof(Tiles<LaneDimensions>), stream, task);
}

}  // namespace

cudaError_t attend(const AttentionTask& task, cudaStream_t stream) {
  if (task.samples == 0 || task.sequence_length == 0 || task.heads == 0 || task.head_dimension == 0) return cudaSuccess;
  if (task.head_dimension <= 1 * kWarpLanes) return launch_attention<1>(task, stream);
  if (task.head_dimension <= 2 * kWarpLanes) return launch_attention<2>(task, stream);
  if (task.head_dimension <= 3 * kWarpLanes) return launch_attention<3>(task, stream);
  if (task.head_dimension <= kMaximumHeadDimension) return launch_attention<4>(task, stream);
  return cudaErrorInvalidValue;
}

}  // namespace secateur::gpu
