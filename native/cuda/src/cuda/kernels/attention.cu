#include <cfloat>
#include <cmath>

#include "cuda/kernels/attention.h"
#include "cuda/kernels/attention_rows.h"
#include "cuda/tensor_core.h"

namespace secateur::gpu {
namespace {

// A block has a tile of queries of one head and goes through the keys tile by tile. Eight neighbouring threads share four queries: each has
// the scores of four keys and, of the result, every eighth piece of four dimensions.
constexpr unsigned kQueries = 64;
constexpr unsigned kKeys = 32;
constexpr unsigned kTeam = 8;
constexpr unsigned kOwnQueries = 4;
constexpr unsigned kTeams = kQueries / kOwnQueries;
constexpr unsigned kThreads = kTeams * kTeam;
constexpr unsigned kOwnKeys = kKeys / kTeam;
constexpr unsigned kPiece = 4;
constexpr unsigned kTeamDimensions = kTeam * kPiece;

// Rows are an odd number of pieces: the same piece of eight neighbouring rows falls on all banks.
template <unsigned Width>
struct Tiles {
  float4 queries[kQueries][Width / kPiece + 1];
  float4 keys[kKeys][Width / kPiece + 1];
  float4 values[kKeys][Width / kPiece + 1];
  // Of keys for a query, relative to the largest so far.
  float4 weights[kQueries][kKeys / kPiece + 2];
};

// Starts copying rows first_row and following to shared memory, with zeros beyond their end.
template <unsigned Rows, unsigned RowPieces>
__device__ inline void copy_rows(float4 (&target)[Rows][RowPieces], const HeadRows<float>& rows, std::size_t first_row) {
  constexpr unsigned kPieces = RowPieces - 1;
#pragma unroll 1
  for (unsigned index = threadIdx.x; index < Rows * kPieces; index += kThreads) {
    const unsigned row = index / kPieces;
    const unsigned begin = index % kPieces * kPiece;
    const unsigned beyond = first_row + row < rows.count && begin < rows.size ? rows.size - begin : 0;
    const unsigned count = beyond < kPiece ? beyond : kPiece;
    const float* const source = count == 0 ? rows.first : rows.first + (first_row + row) * rows.stride + begin;
    float4* const piece = &target[row][index % kPieces];
    if (rows.aligned) {
      copy_async_16(piece, source, count * static_cast<unsigned>(sizeof(float)));
    } else {
      *piece = make_float4(count > 0 ? source[0] : 0.0F, count > 1 ? source[1] : 0.0F, count > 2 ? source[2] : 0.0F,
                           count > 3 ? source[3] : 0.0F);
    }
  }
}

__device__ inline float dot(const float4& a, const float4& b, float sum) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

__device__ inline float component(const float4& piece, unsigned index) {
  return index == 0 ? piece.x : index == 1 ? piece.y : index == 2 ? piece.z : piece.w;
}

__device__ inline float4 scaled(const float4& piece, float factor) {
  return make_float4(piece.x * factor, piece.y * factor, piece.z * factor, piece.w * factor);
}

__device__ inline float4 add_scaled(const float4& sum, const float4& piece, float factor) {
  return make_float4(fmaf(factor, piece.x, sum.x), fmaf(factor, piece.y, sum.y), fmaf(factor, piece.z, sum.z),
                     fmaf(factor, piece.w, sum.w));
}

// Over the threads of a team, the same in each of them.
__device__ inline float team_maximum(float value) {
  for (int distance = kTeam / 2; distance > 0; distance /= 2) value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}

__device__ inline float team_sum(float value) {
  for (int distance = kTeam / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

// Width: head_dimension, rounded up to whole rounds of a team.
template <unsigned Width>
__global__ void __launch_bounds__(kThreads, 2) attend_kernel(AttentionTask<float> task) {
  constexpr unsigned kRounds = Width / kTeamDimensions;
  SECATEUR_DYNAMIC_SHARED(Tiles<Width>, tiles);
  const std::size_t length = task.sequence_length;
  const std::size_t size = task.head_dimension;
  const std::size_t query_tiles = (length + kQueries - 1) / kQueries;
  // The last queries have the most keys: they begin first. Heads that share keys run at about the same time.
  const std::size_t head = blockIdx.x % task.heads;
  const std::size_t sample = blockIdx.x / task.heads % task.samples;
  const std::size_t first_query = (query_tiles - 1 - blockIdx.x / task.heads / task.samples) * kQueries;
  const std::size_t key_head = head / (task.heads / task.key_value_heads);
  const HeadRows<float> queries = rows_of<kPiece>(task.queries, task.heads, head, sample, length, size);
  const HeadRows<float> keys = rows_of<kPiece>(task.keys, task.key_value_heads, key_head, sample, length, size);
  const HeadRows<float> values = rows_of<kPiece>(task.values, task.key_value_heads, key_head, sample, length, size);
  const unsigned team = threadIdx.x / kTeam;
  const unsigned member = threadIdx.x % kTeam;
  const unsigned pieces = static_cast<unsigned>((size + kPiece - 1) / kPiece);
  const float scale = 1.0F / sqrtf(static_cast<float>(size));

  // Of each query: the largest score so far; relative to it, this thread's share of the sum of weights and of the weighted values.
  float maxima[kOwnQueries];
  float weights[kOwnQueries] = {};
  float4 sums[kOwnQueries][kRounds] = {};
#pragma unroll
  // Finite: the first tiles may have no key in the window of a query.
  for (unsigned i = 0; i < kOwnQueries; ++i) maxima[i] = -FLT_MAX;

  // Tiles before the window of the first query weigh nothing.
  const auto window = static_cast<unsigned>(task.window);
  const std::size_t begin = first_query < task.window ? 0 : (first_query + 1 - task.window) / kKeys * kKeys;
  copy_rows(tiles->queries, queries, first_query);
  copy_rows(tiles->keys, keys, begin);
  copy_async_commit();
  const std::size_t end = first_query + kQueries < length ? first_query + kQueries : length;
  for (std::size_t first_key = begin; first_key < end; first_key += kKeys) {
    copy_async_wait<0>();
    // Keys are there; values of the tile before are no longer read.
    __syncthreads();
    copy_rows(tiles->values, values, first_key);
    copy_async_commit();

    // Of the tile's first query from its first key.
    const unsigned first_distance = static_cast<unsigned>(first_query - first_key);
    float scores[kOwnQueries][kOwnKeys] = {};
#pragma unroll 2
    for (unsigned piece = 0; piece < pieces; ++piece) {
      float4 query[kOwnQueries];
#pragma unroll
      for (unsigned i = 0; i < kOwnQueries; ++i) query[i] = tiles->queries[team + i * kTeams][piece];
#pragma unroll
      for (unsigned j = 0; j < kOwnKeys; ++j) {
        const float4 key = tiles->keys[member + j * kTeam][piece];
#pragma unroll
        for (unsigned i = 0; i < kOwnQueries; ++i) scores[i][j] = dot(query[i], key, scores[i][j]);
      }
    }
#pragma unroll
    for (unsigned i = 0; i < kOwnQueries; ++i) {
      float maximum = maxima[i];
#pragma unroll
      for (unsigned j = 0; j < kOwnKeys; ++j) {
        // Without a sign, keys after the query are further away than any window.
        const unsigned distance = first_distance + (team + i * kTeams) - (member + j * kTeam);
        scores[i][j] = distance < window ? scores[i][j] * scale : -INFINITY;
        maximum = fmaxf(maximum, scores[i][j]);
      }
      maximum = team_maximum(maximum);
      const float correction = expf(maxima[i] - maximum);
      maxima[i] = maximum;
      weights[i] *= correction;
#pragma unroll
      for (unsigned j = 0; j < kOwnKeys; ++j) {
        const float weight = expf(scores[i][j] - maximum);
        weights[i] += weight;
        const unsigned key = member + j * kTeam;
        reinterpret_cast<float*>(tiles->weights[team + i * kTeams])[key] = weight;
      }
#pragma unroll
      for (unsigned round = 0; round < kRounds; ++round) sums[i][round] = scaled(sums[i][round], correction);
    }

    copy_async_wait<0>();
    // Values and weights are there; keys are no longer read.
    __syncthreads();
    if (first_key + kKeys < end) copy_rows(tiles->keys, keys, first_key + kKeys);
    copy_async_commit();
#pragma unroll 1
    for (unsigned piece = 0; piece < kKeys / kPiece; ++piece) {
      float4 weight[kOwnQueries];
#pragma unroll
      for (unsigned i = 0; i < kOwnQueries; ++i) weight[i] = tiles->weights[team + i * kTeams][piece];
#pragma unroll
      for (unsigned key = 0; key < kPiece; ++key) {
#pragma unroll
        for (unsigned round = 0; round < kRounds; ++round) {
          const float4 value = tiles->values[piece * kPiece + key][member + round * kTeam];
#pragma unroll
          for (unsigned i = 0; i < kOwnQueries; ++i) {
            sums[i][round] = add_scaled(sums[i][round], value, component(weight[i], key));
          }
        }
      }
    }
  }

  const bool whole_pieces = size % kPiece == 0 && reinterpret_cast<std::uintptr_t>(task.result) % sizeof(float4) == 0;
#pragma unroll
  for (unsigned i = 0; i < kOwnQueries; ++i) {
    const std::size_t query = first_query + team + i * kTeams;
    const float weight = team_sum(weights[i]);
    if (query >= length) continue;
    float* const result = task.result + ((sample * length + query) * task.heads + head) * size;
#pragma unroll
    for (unsigned round = 0; round < kRounds; ++round) {
      const unsigned first = (member + round * kTeam) * kPiece;
      const float4& sum = sums[i][round];
      const float4 piece = make_float4(sum.x / weight, sum.y / weight, sum.z / weight, sum.w / weight);
      if (whole_pieces) {
        // A plain one would be merged with the others below, and split in four.
        if (first < size) __stcg(reinterpret_cast<float4*>(result + first), piece);
      } else {
#pragma unroll
        for (unsigned k = 0; k < kPiece; ++k) {
          if (first + k < size) result[first + k] = component(piece, k);
        }
      }
    }
  }
}

template <unsigned Width>
cudaError_t launch_attention(AttentionTask<float> task, cudaStream_t stream) {
  // A longer one sees no more.
  if (task.window == 0 || task.window > task.sequence_length) task.window = task.sequence_length;
  const std::size_t tiles = (task.sequence_length + kQueries - 1) / kQueries;
  const dim3 grid(static_cast<unsigned>(tiles * task.heads * task.samples));
  return launch(attend_kernel<Width>, grid, dim3(kThreads), sizeof(Tiles<Width>), stream, task);
}

}  // namespace

cudaError_t attend(const AttentionTask<float>& task, cudaStream_t stream) {
  if (task.samples == 0 || task.sequence_length == 0 || task.heads == 0 || task.head_dimension == 0) return cudaSuccess;
  if (task.head_dimension <= 1 * kTeamDimensions) return launch_attention<1 * kTeamDimensions>(task, stream);
  if (task.head_dimension <= 2 * kTeamDimensions) return launch_attention<2 * kTeamDimensions>(task, stream);
  if (task.head_dimension <= 3 * kTeamDimensions) return launch_attention<3 * kTeamDimensions>(task, stream);
  if (task.head_dimension <= kMaximumHeadDimension) return launch_attention<kMaximumHeadDimension>(task, stream);
  return cudaErrorInvalidValue;
}

}  // namespace secateur::gpu
