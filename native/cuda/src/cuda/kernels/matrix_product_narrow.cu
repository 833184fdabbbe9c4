#include "cuda/kernels/matrix_product_narrow.h"
#include "cuda/kernels/matrix_tile.h"

namespace secateur::gpu {
namespace {

// Warps of a block and how they divide its tile.
constexpr unsigned kWarpRows = 2;
constexpr unsigned kWarpColumns = 4;
constexpr unsigned kThreads = kWarpRows * kWarpColumns * kWarpLanes;
constexpr unsigned kStages = 4;
// Values of 16 bits.
constexpr unsigned kInner = kStripInner<std::uint16_t>;
// Sizes of one multiply_accumulate.
constexpr unsigned kFragmentRows = 16;
constexpr unsigned kFragmentColumns = 8;
constexpr unsigned kFragmentInner = 16;

template <class Narrow, unsigned Tile>
struct Strips {
  Narrow left[Tile * kInner];
  Narrow right[Tile * kInner];
};

// Fragments of 16 rows from `row` on; the first two matrices are the rows, the others the same rows 8 further along the inner dimension.
template <class Narrow>
__device__ inline void load_left(unsigned (&fragment)[4], const Narrow* strip, unsigned row, unsigned inner, unsigned lane) {
  const unsigned place = place_of_piece(row + lane % 16, inner * 2 + lane / 16);
  load_matrices(fragment, strip + place * kPieceElements<Narrow>);
}

// Fragments of 16 columns from `column` on: two of eight columns, each with its two steps along the inner dimension.
template <class Narrow>
__device__ inline void load_right(unsigned (&first)[2], unsigned (&second)[2], const Narrow* strip, unsigned column, unsigned inner,
                                  unsigned lane) {
  const unsigned place = place_of_piece(column + lane / 16 * 8 + lane % 8, inner * 2 + lane / 8 % 2);
  unsigned both[4];
  load_matrices(both, strip + place * kPieceElements<Narrow>);
  first[0] = both[0];
  first[1] = both[1];
  second[0] = both[2];
  second[1] = both[3];
}

template <class Narrow, unsigned Tile>
__global__ void __launch_bounds__(kThreads, 2) multiply(MatrixProductNarrow<Narrow> task) {
  constexpr unsigned kOwnRows = Tile / kWarpRows;
  constexpr unsigned kOwnColumns = Tile / kWarpColumns;
  constexpr unsigned kRowFragments = kOwnRows / kFragmentRows;
  constexpr unsigned kColumnFragments = kOwnColumns / kFragmentColumns;
  static_assert(kColumnFragments % 2 == 0, "right fragments are loaded two at a time");
  using Stage = Strips<Narrow, Tile>;
  SECATEUR_DYNAMIC_SHARED(Stage, stages);
  const TilePosition tile = tile_of_block((task.m + Tile - 1) / Tile, (task.n + Tile - 1) / Tile);
  const std::size_t first_row = tile.row * Tile;
  const std::size_t first_column = tile.column * Tile;
  const OperandRows<Narrow> left = rows_of(task.left, task.m, task.k, first_row, Tile);
  const OperandRows<Narrow> right = rows_of(task.right, task.n, task.k, first_column, Tile);
  const unsigned warp = threadIdx.x / kWarpLanes;
  const unsigned lane = threadIdx.x % kWarpLanes;
  const unsigned own_row = warp / kWarpColumns * kOwnRows;
  const unsigned own_column = warp % kWarpColumns * kOwnColumns;

  const std::size_t steps = (task.k + kInner - 1) / kInner;
  const auto start_step = [&](std::size_t step) {
    if (step < steps) {
      Stage& strips = stages[step % kStages];
      copy_strip<Tile, kThreads>(strips.left, left, step * kInner);
      copy_strip<Tile, kThreads>(strips.right, right, step * kInner);
    }
    copy_async_commit();
  };

  float sums[kRowFragments][kColumnFragments][4] = {};
#pragma unroll 1
  for (unsigned step = 0; step + 1 < kStages; ++step) start_step(step);
  for (std::size_t step = 0; step < steps; ++step) {
    copy_async_wait<kStages - 2>();
    // Also: everyone is done with the stage that is filled next.
    __syncthreads();
    start_step(step + kStages - 1);
    const Stage& strips = stages[step % kStages];
#pragma unroll
    for (unsigned inner = 0; inner < kInner / kFragmentInner; ++inner) {
      unsigned lefts[kRowFragments][4];
      unsigned rights[kColumnFragments][2];
#pragma unroll
      for (unsigned i = 0; i < kRowFragments; ++i) load_left(lefts[i], strips.left, own_row + i * kFragmentRows, inner, lane);
#pragma unroll
      for (unsigned j = 0; j < kColumnFragments; j += 2) {
        load_right(rights[j], rights[j + 1], strips.right, own_column + j * kFragmentColumns, inner, lane);
      }
#pragma unroll
      for (unsigned i = 0; i < kRowFragments; ++i) {
#pragma unroll
        for (unsigned j = 0; j < kColumnFragments; ++j) multiply_accumulate<Narrow>(sums[i][j], lefts[i], rights[j]);
      }
    }
  }

  // A lane has two neighbours of a row of the result, which one write takes where both are there.
  float* const result = task.result + first_row * task.n + first_column;
  const bool paired = task.n % 2 == 0 && reinterpret_cast<std::uintptr_t>(task.result) % sizeof(float2) == 0;
#pragma unroll
  for (unsigned j = 0; j < kColumnFragments; ++j) {
    const unsigned column = own_column + j * kFragmentColumns + lane % 4 * 2;
    if (column >= right.count) continue;
    const bool both = column + 1 < right.count;
    const float first_bias = task.bias == nullptr ? 0.0F : task.bias[first_column + column];
    const float second_bias = task.bias == nullptr || !both ? 0.0F : task.bias[first_column + column + 1];
#pragma unroll
    for (unsigned i = 0; i < 2 * kRowFragments; ++i) {
      const unsigned row = own_row + i / 2 * kFragmentRows + i % 2 * 8 + lane / 4;
      if (row >= left.count) continue;
      float* const pair = result + row * task.n + column;
      const float first = sums[i / 2][j][i % 2 * 2] + first_bias;
      const float second = sums[i / 2][j][i % 2 * 2 + 1] + second_bias;
      if (paired) {
        // A plain one would be merged with the others below, and split in two.
        __stcg(reinterpret_cast<float2*>(pair), make_float2(first, second));
      } else {
        pair[0] = first;
        if (both) pair[1] = second;
      }
    }
  }
}

template <unsigned Tile, class Narrow>
cudaError_t launch_tiles(const MatrixProductNarrow<Narrow>& task, cudaStream_t stream) {
  const auto tiles = static_cast<unsigned>(tile_count(task.m, task.n, Tile));
  return launch(multiply<Narrow, Tile>, dim3(tiles), dim3(kThreads), kStages * sizeof(Strips<Narrow, Tile>), stream, task);
}

template <class Narrow>
cudaError_t launch_product(const MatrixProductNarrow<Narrow>& task, cudaStream_t stream) {
  if (task.m == 0 || task.n == 0) return cudaSuccess;
  return fills_with_large_tiles(task.m, task.n) ? launch_tiles<kLargeTile>(task, stream) : launch_tiles<kSmallTile>(task, stream);
}

}  // namespace

cudaError_t matrix_product_narrow(const MatrixProductNarrow<bfloat16>& task, cudaStream_t stream) { return launch_product(task, stream); }

cudaError_t matrix_product_narrow(const MatrixProductNarrow<float16>& task, cudaStream_t stream) { return launch_product(task, stream); }

}  // namespace secateur::gpu
