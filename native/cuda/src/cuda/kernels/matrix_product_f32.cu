#include "cuda/kernels/matrix_product_f32.h"
#include "cuda/kernels/matrix_tile.h"

namespace secateur::gpu {
namespace {

// Threads of a block form a square; each computes every 16th row and column of the tile.
constexpr unsigned kSquare = 16;
constexpr unsigned kThreads = kSquare * kSquare;
constexpr unsigned kStages = 3;
constexpr unsigned kInner = kStripInner<float>;

template <unsigned Tile>
struct Strips {
  float left[Tile * kInner];
  float right[Tile * kInner];
};

// The piece of every 16th row of a strip: a pointer to that of `row` and the distance to the next.
__device__ inline const float4* pieces_of(const float* strip, unsigned row, unsigned piece) {
  return reinterpret_cast<const float4*>(strip) + place_of_piece(row, piece);
}
constexpr unsigned kNextPiece = kSquare * kRowPieces;
static_assert(kSquare % kSwizzleRows == 0, "those rows have the same order of pieces");

template <unsigned Tile>
__global__ void __launch_bounds__(kThreads, 2) multiply(MatrixProductF32 task) {
  constexpr unsigned kOwn = Tile / kSquare;
  SECATEUR_DYNAMIC_SHARED(Strips<Tile>, stages);
  const TilePosition tile = tile_of_block((task.m + Tile - 1) / Tile, (task.n + Tile - 1) / Tile);
  const std::size_t first_row = tile.row * Tile;
  const std::size_t first_column = tile.column * Tile;
  const OperandRows<float> left = rows_of(task.left, task.m, task.k, first_row, Tile);
  const OperandRows<float> right = rows_of(task.right, task.n, task.k, first_column, Tile);
  // A warp covers 4 rows and 8 columns of the square: few distinct rows to read from shared memory.
  const unsigned warp = threadIdx.x / kWarpLanes;
  const unsigned lane = threadIdx.x % kWarpLanes;
  const unsigned own_row = warp / 2 * 4 + lane / 8;
  const unsigned own_column = warp % 2 * 8 + lane % 8;

  const std::size_t steps = (task.k + kInner - 1) / kInner;
  const auto start_step = [&](std::size_t step) {
    if (step < steps) {
      Strips<Tile>& strips = stages[step % kStages];
      copy_strip<Tile, kThreads>(strips.left, left, step * kInner);
      copy_strip<Tile, kThreads>(strips.right, right, step * kInner);
    }
    copy_async_commit();
  };

  float sums[kOwn][kOwn] = {};
#pragma unroll 1
  for (unsigned step = 0; step + 1 < kStages; ++step) start_step(step);
  for (std::size_t step = 0; step < steps; ++step) {
    copy_async_wait<kStages - 2>();
    // Also: everyone is done with the stage that is filled next.
    __syncthreads();
    start_step(step + kStages - 1);
    const Strips<Tile>& strips = stages[step % kStages];
    // Not unrolled: pieces fetched ahead would cost more registers than there are.
#pragma unroll 1
    for (unsigned piece = 0; piece < kRowPieces; ++piece) {
      const float4* const left_pieces = pieces_of(strips.left, own_row, piece);
      const float4* const right_pieces = pieces_of(strips.right, own_column, piece);
      float4 rows[kOwn];
#pragma unroll
      for (unsigned i = 0; i < kOwn; ++i) rows[i] = left_pieces[i * kNextPiece];
#pragma unroll
      for (unsigned j = 0; j < kOwn; ++j) {
        const float4 column = right_pieces[j * kNextPiece];
#pragma unroll
        for (unsigned i = 0; i < kOwn; ++i) {
          float sum = sums[i][j];
          sum = fmaf(rows[i].x, column.x, sum);
          sum = fmaf(rows[i].y, column.y, sum);
          sum = fmaf(rows[i].z, column.z, sum);
          sums[i][j] = fmaf(rows[i].w, column.w, sum);
        }
      }
    }
  }

  float* const result = task.result + first_row * task.n + first_column;
#pragma unroll
  for (unsigned j = 0; j < kOwn; ++j) {
    const unsigned column = own_column + j * kSquare;
    if (column >= right.count) continue;
    const float bias = task.bias == nullptr ? 0.0F : task.bias[first_column + column];
#pragma unroll
    for (unsigned i = 0; i < kOwn; ++i) {
      const unsigned row = own_row + i * kSquare;
      if (row < left.count) result[row * task.n + column] = sums[i][j] + bias;
    }
  }
}

template <unsigned Tile>
cudaError_t launch_tiles(const MatrixProductF32& task, cudaStream_t stream) {
  const auto tiles = static_cast<unsigned>(tile_count(task.m, task.n, Tile));
  return launch(multiply<Tile>, dim3(tiles), dim3(kThreads), kStages * sizeof(Strips<Tile>), stream, task);
}

}  // namespace

cudaError_t matrix_product_f32(const MatrixProductF32& task, cudaStream_t stream) {
  if (task.m == 0 || task.n == 0) return cudaSuccess;
  return fills_with_large_tiles(task.m, task.n) ? launch_tiles<kLargeTile>(task, stream) : launch_tiles<kSmallTile>(task, stream);
}

}  // namespace secateur::gpu
