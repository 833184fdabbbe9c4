#include <cfloat>
#include <cmath>

#include "cuda/kernels/attention_narrow.h"
#include "cuda/kernels/attention_rows.h"

namespace secateur::gpu {
namespace {

// A block has a tile of queries of one head, 16 of them in each warp, and goes through the keys tile by tile.
constexpr unsigned kWarps = 8;
constexpr unsigned kThreads = kWarps * kWarpLanes;
constexpr unsigned kWarpQueries = 16;
constexpr unsigned kQueries = kWarps * kWarpQueries;
constexpr unsigned kKeys = 64;
// Elements of 16 bytes.
constexpr unsigned kPiece = 8;
// Sizes of one multiply_accumulate.
constexpr unsigned kFragmentColumns = 8;
constexpr unsigned kFragmentInner = 16;
constexpr unsigned kKeyFragments = kKeys / kFragmentColumns;
constexpr float kLog2OfE = 1.44269504088896340736F;

// An odd number of pieces: the same piece of eight neighbouring rows falls on all banks.
template <class Narrow, unsigned Width>
struct alignas(16) Row {
  Narrow values[Width + kPiece];
};

template <class Narrow, unsigned Width>
struct Tiles {
  Row<Narrow, Width> queries[kQueries];
  Row<Narrow, Width> keys[kKeys];
  Row<Narrow, Width> values[kKeys];
};

// Starts copying keys or values from first_row on to shared memory, with zeros beyond their end.
template <class Narrow, unsigned Width>
__device__ inline void copy_rows(Row<Narrow, Width> (&target)[kKeys], const HeadRows<Narrow>& rows, std::size_t first_row) {
  constexpr unsigned kPieces = Width / kPiece;
#pragma unroll 2
  for (unsigned index = threadIdx.x; index < kKeys * kPieces; index += kThreads) {
    const unsigned row = index / kPieces;
    const unsigned begin = index % kPieces * kPiece;
    const unsigned beyond = first_row + row < rows.count && begin < rows.size ? rows.size - begin : 0;
    const unsigned count = beyond < kPiece ? beyond : kPiece;
    const Narrow* const source = count == 0 ? rows.first : rows.first + (first_row + row) * rows.stride + begin;
    Narrow* const piece = target[row].values + begin;
    if (rows.aligned) {
      copy_async_16(piece, source, count * static_cast<unsigned>(sizeof(Narrow)));
    } else {
#pragma unroll 1
      for (unsigned i = 0; i < kPiece; ++i) piece[i] = i < count ? source[i] : Narrow{};
    }
  }
}

// Copies queries to shared memory, narrowed, with zeros beyond their end. A warp takes a row at a time, a lane four neighbours of it.
template <class Narrow, unsigned Width>
__device__ inline void narrow_rows(Row<Narrow, Width> (&target)[kQueries], const HeadRows<float>& rows, std::size_t first_row) {
  constexpr unsigned kNeighbours = 4;
  const unsigned begin = threadIdx.x % kWarpLanes * kNeighbours;
  if (begin >= Width) return;
#pragma unroll 4
  for (unsigned row = threadIdx.x / kWarpLanes; row < kQueries; row += kWarps) {
    const unsigned beyond = first_row + row < rows.count && begin < rows.size ? rows.size - begin : 0;
    const float* const source = beyond == 0 ? rows.first : rows.first + (first_row + row) * rows.stride + begin;
    float4 values;
    if (rows.aligned && beyond >= kNeighbours) {
      values = *reinterpret_cast<const float4*>(source);
    } else {
      values = make_float4(beyond > 0 ? source[0] : 0.0F, beyond > 1 ? source[1] : 0.0F, beyond > 2 ? source[2] : 0.0F,
                           beyond > 3 ? source[3] : 0.0F);
    }
    *reinterpret_cast<uint2*>(target[row].values + begin) =
        make_uint2(narrow_pair<Narrow>(values.x, values.y), narrow_pair<Narrow>(values.z, values.w));
  }
}

// Over the four lanes that share the rows of a fragment of sums, the same in each of them.
__device__ inline float row_maximum(float value) {
  value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, 1));
  return fmaxf(value, __shfl_xor_sync(kAllLanes, value, 2));
}

__device__ inline float row_sum(float value) {
  value += __shfl_xor_sync(kAllLanes, value, 1);
  return value + __shfl_xor_sync(kAllLanes, value, 2);
}

// Width: head_dimension, rounded up to a multiple of 32.
template <class Narrow, unsigned Width>
__global__ void __launch_bounds__(kThreads, Width <= 32 ? 2 : 1) attend_narrow_kernel(AttentionTask<Narrow> task) {
  constexpr unsigned kInnerFragments = Width / kFragmentInner;
  constexpr unsigned kResultFragments = Width / kFragmentColumns;
  using HeadTiles = Tiles<Narrow, Width>;
  SECATEUR_DYNAMIC_SHARED(HeadTiles, tiles);
  const std::size_t length = task.sequence_length;
  const std::size_t size = task.head_dimension;
  const std::size_t query_tiles = (length + kQueries - 1) / kQueries;
  // The last queries have the most keys: they begin first. Heads that share keys run at about the same time.
  const std::size_t head = blockIdx.x % task.heads;
  const std::size_t sample = blockIdx.x / task.heads % task.samples;
  const std::size_t first_query = (query_tiles - 1 - blockIdx.x / task.heads / task.samples) * kQueries;
  const std::size_t key_head = head / (task.heads / task.key_value_heads);
  const HeadRows<float> queries = rows_of<kPiece>(task.queries, task.heads, head, sample, length, size);
  const HeadRows<Narrow> keys = rows_of<kPiece>(task.keys, task.key_value_heads, key_head, sample, length, size);
  const HeadRows<Narrow> values = rows_of<kPiece>(task.values, task.key_value_heads, key_head, sample, length, size);
  const unsigned lane = threadIdx.x % kWarpLanes;
  const unsigned own_query = threadIdx.x / kWarpLanes * kWarpQueries;
  // Powers of two are what the device computes: e^x = 2^(x · log2 e).
  const float scale = kLog2OfE / sqrtf(static_cast<float>(size));

  // Tiles before the window of the first query weigh nothing.
  const auto window = static_cast<unsigned>(task.window);
  const std::size_t begin = first_query < task.window ? 0 : (first_query + 1 - task.window) / kKeys * kKeys;
  copy_rows(tiles->keys, keys, begin);
  copy_async_commit();
  narrow_rows(tiles->queries, queries, first_query);
  __syncthreads();
  unsigned query[kInnerFragments][4];
#pragma unroll
  for (unsigned inner = 0; inner < kInnerFragments; ++inner) {
    load_matrices(query[inner], tiles->queries[own_query + lane % 16].values + inner * kFragmentInner + lane / 16 * kPiece);
  }

  // Of the two queries of this lane: the largest score so far; relative to it, this lane's share of the sum of weights and of the weighted
  // values. Finite: the first tiles may have no key in the window of a query.
  float maxima[2] = {-FLT_MAX, -FLT_MAX};
  float weights[2] = {};
  float sums[kResultFragments][4] = {};
  const std::size_t end = first_query + kQueries < length ? first_query + kQueries : length;
  for (std::size_t first_key = begin; first_key < end; first_key += kKeys) {
    copy_async_wait<0>();
    // Keys are there; values of the tile before are no longer read.
    __syncthreads();
    copy_rows(tiles->values, values, first_key);
    copy_async_commit();

    float scores[kKeyFragments][4] = {};
#pragma unroll
    for (unsigned inner = 0; inner < kInnerFragments; ++inner) {
#pragma unroll
      for (unsigned j = 0; j < kKeyFragments; j += 2) {
        // Two fragments of eight keys, each with its two steps along the inner dimension.
        unsigned both[4];
        load_matrices(both,
                      tiles->keys[j * kFragmentColumns + lane / 16 * 8 + lane % 8].values + inner * kFragmentInner + lane / 8 % 2 * kPiece);
        const unsigned first[2] = {both[0], both[1]};
        const unsigned second[2] = {both[2], both[3]};
        multiply_accumulate<Narrow>(scores[j], query[inner], first);
        multiply_accumulate<Narrow>(scores[j + 1], query[inner], second);
      }
    }

    // Of the warp's first query from the tile's first key.
    const int distance = static_cast<int>(first_query + own_query) - static_cast<int>(first_key);
    const bool sees_all = distance + 1 >= static_cast<int>(kKeys) && static_cast<unsigned>(distance) + kWarpQueries <= window;
    if (!sees_all) {
      const unsigned of_lane = static_cast<unsigned>(distance) + lane / 4 - lane % 4 * 2;
#pragma unroll
      for (unsigned j = 0; j < kKeyFragments; ++j) {
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) {
          // Without a sign, keys after the query are further away than any window.
          if (of_lane + i / 2 * 8 - j * kFragmentColumns - i % 2 >= window) scores[j][i] = -INFINITY;
        }
      }
    }
#pragma unroll
    for (unsigned half = 0; half < 2; ++half) {
      float maximum = maxima[half];
#pragma unroll
      for (unsigned j = 0; j < kKeyFragments; ++j) maximum = fmaxf(maximum, fmaxf(scores[j][half * 2], scores[j][half * 2 + 1]));
      maximum = row_maximum(maximum);
      const float correction = exp2f((maxima[half] - maximum) * scale);
      maxima[half] = maximum;
      weights[half] *= correction;
#pragma unroll
      for (unsigned j = 0; j < kKeyFragments; ++j) {
#pragma unroll
        for (unsigned i = half * 2; i < half * 2 + 2; ++i) {
          scores[j][i] = exp2f((scores[j][i] - maximum) * scale);
          weights[half] += scores[j][i];
        }
      }
#pragma unroll
      for (unsigned j = 0; j < kResultFragments; ++j) {
        sums[j][half * 2] *= correction;
        sums[j][half * 2 + 1] *= correction;
      }
    }

    copy_async_wait<0>();
    // Values are there; keys are no longer read.
    __syncthreads();
    if (first_key + kKeys < end) copy_rows(tiles->keys, keys, first_key + kKeys);
    copy_async_commit();
#pragma unroll
    for (unsigned inner = 0; inner < kKeys / kFragmentInner; ++inner) {
      // Two neighbouring fragments of sums, narrowed, are one of a left operand.
      const float(&left)[4] = scores[2 * inner];
      const float(&right)[4] = scores[2 * inner + 1];
      const unsigned weight[4] = {narrow_pair<Narrow>(left[0], left[1]), narrow_pair<Narrow>(left[2], left[3]),
                                  narrow_pair<Narrow>(right[0], right[1]), narrow_pair<Narrow>(right[2], right[3])};
#pragma unroll
      for (unsigned j = 0; j < kResultFragments; j += 2) {
        unsigned both[4];
        load_matrices_transposed(both, tiles->values[inner * kFragmentInner + lane % 16].values + (j + lane / 16) * kFragmentColumns);
        const unsigned first[2] = {both[0], both[1]};
        const unsigned second[2] = {both[2], both[3]};
        multiply_accumulate<Narrow>(sums[j], weight, first);
        multiply_accumulate<Narrow>(sums[j + 1], weight, second);
      }
    }
  }

  // A lane has two neighbours of a row of the result, which one write takes where both are there.
  const bool paired = size % 2 == 0 && reinterpret_cast<std::uintptr_t>(task.result) % sizeof(float2) == 0;
#pragma unroll
  for (unsigned half = 0; half < 2; ++half) {
    const std::size_t row = first_query + own_query + lane / 4 + half * 8;
    const float weight = row_sum(weights[half]);
    if (row >= length) continue;
    float* const result = task.result + ((sample * length + row) * task.heads + head) * size;
#pragma unroll
    for (unsigned j = 0; j < kResultFragments; ++j) {
      const unsigned dimension = j * kFragmentColumns + lane % 4 * 2;
      const float first = sums[j][half * 2] / weight;
      const float second = sums[j][half * 2 + 1] / weight;
      if (paired && dimension < size) {
        *reinterpret_cast<float2*>(result + dimension) = make_float2(first, second);
      } else {
        if (dimension < size) result[dimension] = first;
        if (dimension + 1 < size) result[dimension + 1] = second;
      }
    }
  }
}

template <unsigned Width, class Narrow>
cudaError_t launch_width(AttentionTask<Narrow> task, cudaStream_t stream) {
  // A longer one sees no more.
  if (task.window == 0 || task.window > task.sequence_length) task.window = task.sequence_length;
  const std::size_t tiles = (task.sequence_length + kQueries - 1) / kQueries;
  const dim3 grid(static_cast<unsigned>(tiles * task.heads * task.samples));
  return launch(attend_narrow_kernel<Narrow, Width>, grid, dim3(kThreads), sizeof(Tiles<Narrow, Width>), stream, task);
}

template <class Narrow>
cudaError_t launch_attention(const AttentionTask<Narrow>& task, cudaStream_t stream) {
  if (task.samples == 0 || task.sequence_length == 0 || task.heads == 0 || task.head_dimension == 0) return cudaSuccess;
  if (task.head_dimension <= 32) return launch_width<32>(task, stream);
  if (task.head_dimension <= 64) return launch_width<64>(task, stream);
  if (task.head_dimension <= 96) return launch_width<96>(task, stream);
  if (task.head_dimension <= kMaximumHeadDimension) return launch_width<kMaximumHeadDimension>(task, stream);
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t attend_narrow(const AttentionTask<bfloat16>& task, cudaStream_t stream) { return launch_attention(task, stream); }

cudaError_t attend_narrow(const AttentionTask<float16>& task, cudaStream_t stream) { return launch_attention(task, stream); }

}  // namespace secateur::gpu
