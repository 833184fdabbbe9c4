#include "cuda/kernels/inverse_factor.h"

namespace secateur::gpu {
namespace {

// The matrix is cut into square tiles. With W lower triangular and WᵀW = matrix, found from the last tile upwards, U is the inverse of Wᵀ:
// W takes the lower half and U the upper one, and the tiles of the diagonal hold those of U, for W's are not needed again.
constexpr unsigned kTile = 64;
constexpr unsigned kSquare = 16;
constexpr unsigned kThreads = kSquare * kSquare;
constexpr unsigned kOwn = kTile / kSquare;
constexpr unsigned kDepth = 16;

struct Matrix {
  double* values;
  std::size_t size;

  // Zero outside.
  __device__ double at(std::size_t row, std::size_t column) const {
    return row < size && column < size ? values[row * size + column] : 0.0;
  }
};

// Sums of products over a slice of kDepth terms at a time; a padded row keeps the banks apart.
struct Strips {
  double left[kDepth][kTile + 1];
  double right[kDepth][kTile + 1];
};

struct TileSums {
  double values[kOwn][kOwn];
};

__device__ inline void add_products(const Strips& strips, TileSums& sums) {
  const unsigned own_row = threadIdx.x / kSquare;
  const unsigned own_column = threadIdx.x % kSquare;
#pragma unroll 4
  for (unsigned t = 0; t < kDepth; ++t) {
    double right[kOwn];
#pragma unroll
    for (unsigned j = 0; j < kOwn; ++j) right[j] = strips.right[t][own_column + j * kSquare];
#pragma unroll
    for (unsigned i = 0; i < kOwn; ++i) {
      const double left = strips.left[t][own_row + i * kSquare];
#pragma unroll
      for (unsigned j = 0; j < kOwn; ++j) sums.values[i][j] = fma(left, right[j], sums.values[i][j]);
    }
  }
}

// strip[t][i] = matrix[first_row + t, first_column + i].
__device__ inline void load_rows(double (&strip)[kDepth][kTile + 1], const Matrix& matrix, std::size_t first_row,
                                 std::size_t first_column) {
  for (unsigned t = threadIdx.x / kTile; t < kDepth; t += kThreads / kTile) {
    strip[t][threadIdx.x % kTile] = matrix.at(first_row + t, first_column + threadIdx.x % kTile);
  }
}

// strip[t][i] = matrix[first_row + i, first_column + t].
__device__ inline void load_columns(double (&strip)[kDepth][kTile + 1], const Matrix& matrix, std::size_t first_row,
                                    std::size_t first_column) {
  for (unsigned i = threadIdx.x / kDepth; i < kTile; i += kThreads / kDepth) {
    strip[threadIdx.x % kDepth][i] = matrix.at(first_row + i, first_column + threadIdx.x % kDepth);
  }
}

// Calls visit(row, column, sum) for the thread's own sums, with places inside the tile.
template <class Visit>
__device__ inline void for_own(const TileSums& sums, const Visit& visit) {
#pragma unroll
  for (unsigned i = 0; i < kOwn; ++i) {
#pragma unroll
    for (unsigned j = 0; j < kOwn; ++j) {
      visit(threadIdx.x / kSquare + i * kSquare, threadIdx.x % kSquare + j * kSquare, sums.values[i][j]);
    }
  }
}

struct DiagonalTile {
  // W in the lower half and on the diagonal; then U in the upper half. Rows are not padded: neighbours among the threads that find U work a
  // row and a column apart, which keeps the banks apart.
  double values[kTile][kTile];
  // Of U.
  double diagonal[kTile];
};

// Calls visit(row, column) for columns [0, end_of(row)) of every row below `rows`: a warp per row, a lane per column.
template <class EndOf, class Visit>
__device__ inline void for_rows(unsigned rows, const EndOf& end_of, const Visit& visit) {
  for (unsigned row = threadIdx.x / kWarpLanes; row < rows; row += kThreads / kWarpLanes) {
    const unsigned end = end_of(row);
    for (unsigned column = threadIdx.x % kWarpLanes; column < end; column += kWarpLanes) visit(row, column);
  }
}

// Replaces the tile of the diagonal at `first` by U's: A = WᵀW, U = W⁻ᵀ. One block.
__global__ void __launch_bounds__(kThreads) factor_diagonal_tile(Matrix matrix, std::size_t first, unsigned* failed) {
  SECATEUR_SHARED(DiagonalTile, tile);
  const unsigned size = matrix.size - first < kTile ? static_cast<unsigned>(matrix.size - first) : kTile;
  double* const values = matrix.values + first * matrix.size + first;
  const auto lower_half = [](unsigned row) { return row + 1; };
  for_rows(size, lower_half, [&](unsigned row, unsigned column) { tile.values[row][column] = values[row * matrix.size + column]; });
  __syncthreads();
  // W from the last row upwards.
  for (unsigned k = size; k-- > 0;) {
    const double pivot = tile.values[k][k];
    const bool usable = pivot > 0 && pivot < 1e300;
    const double root = usable ? sqrt(pivot) : 1.0;
    __syncthreads();
    if (threadIdx.x <= k) tile.values[k][threadIdx.x] = threadIdx.x == k ? root : tile.values[k][threadIdx.x] / root;
    if (threadIdx.x == 0 && !usable) *failed = 1;
    __syncthreads();
    for_rows(k, lower_half,
             [&](unsigned row, unsigned column) { tile.values[row][column] -= tile.values[k][row] * tile.values[k][column]; });
    __syncthreads();
  }
  // Column r of W⁻¹ is row r of U; a thread solves one column.
  if (threadIdx.x < size) {
    const unsigned r = threadIdx.x;
    const double own = 1.0 / tile.values[r][r];
    tile.diagonal[r] = own;
    for (unsigned column = r + 1; column < size; ++column) {
      double sum = fma(tile.values[column][r], own, 0.0);
      for (unsigned t = r + 1; t < column; ++t) sum = fma(tile.values[column][t], tile.values[r][t], sum);
      tile.values[r][column] = -sum / tile.values[column][column];
    }
  }
  __syncthreads();
  const auto whole_row = [&](unsigned) { return size; };
  for_rows(size, whole_row, [&](unsigned row, unsigned column) {
    const double above = row < column ? tile.values[row][column] : 0.0;
    values[row * matrix.size + column] = row == column ? tile.diagonal[row] : above;
  });
}

// W[k, i] = U[k, k] · A[k, i] for the tiles i left of the diagonal tile at `first`. A block per tile.
__global__ void __launch_bounds__(kThreads) finish_row_of_tiles(Matrix matrix, std::size_t first) {
  SECATEUR_SHARED(Strips, strips);
  const std::size_t first_column = std::size_t{blockIdx.x} * kTile;
  TileSums sums = {};
  for (unsigned t = 0; t < kTile; t += kDepth) {
    load_columns(strips.left, matrix, first, first + t);
    load_rows(strips.right, matrix, first + t, first_column);
    __syncthreads();
    add_products(strips, sums);
    __syncthreads();
  }
  for_own(sums, [&](unsigned row, unsigned column, double sum) {
    if (first + row < matrix.size) matrix.values[(first + row) * matrix.size + first_column + column] = sum;
  });
}

// A[j, i] -= W[k, j]ᵀ · W[k, i] for the tiles i <= j above the row of tiles at `first`. A block per tile of that square.
__global__ void __launch_bounds__(kThreads) update_tiles_above(Matrix matrix, std::size_t first) {
  SECATEUR_SHARED(Strips, strips);
  const std::size_t tiles = first / kTile;
  const std::size_t first_row = blockIdx.x / tiles * kTile;
  const std::size_t first_column = blockIdx.x % tiles * kTile;
  if (first_column > first_row) return;
  TileSums sums = {};
  for (unsigned t = 0; t < kTile; t += kDepth) {
    load_rows(strips.left, matrix, first + t, first_row);
    load_rows(strips.right, matrix, first + t, first_column);
    __syncthreads();
    add_products(strips, sums);
    __syncthreads();
  }
  for_own(sums, [&](unsigned row, unsigned column, double sum) {
    matrix.values[(first_row + row) * matrix.size + first_column + column] -= sum;
  });
}

struct InverseStrips {
  Strips strips;
  double products[kTile][kTile + 1];
};

// U[i, k] = -(Σ_j U[i, j] · W[k, j]ᵀ) · U[k, k], i <= j < k, for the tiles i above the diagonal tile at `first`. A block per tile.
__global__ void __launch_bounds__(kThreads) invert_column_of_tiles(Matrix matrix, std::size_t first) {
  SECATEUR_DYNAMIC_SHARED(InverseStrips, shared);
  const std::size_t first_row = std::size_t{blockIdx.x} * kTile;
  TileSums sums = {};
  for (std::size_t t = first_row; t < first; t += kDepth) {
    load_columns(shared->strips.left, matrix, first_row, t);
    load_columns(shared->strips.right, matrix, first, t);
    __syncthreads();
    add_products(shared->strips, sums);
    __syncthreads();
  }
  for_own(sums, [&](unsigned row, unsigned column, double sum) { shared->products[row][column] = sum; });
  sums = {};
  for (unsigned t = 0; t < kTile; t += kDepth) {
    __syncthreads();
    for (unsigned i = threadIdx.x / kDepth; i < kTile; i += kThreads / kDepth) {
      shared->strips.left[threadIdx.x % kDepth][i] = shared->products[i][t + threadIdx.x % kDepth];
    }
    load_rows(shared->strips.right, matrix, first + t, first);
    __syncthreads();
    add_products(shared->strips, sums);
  }
  for_own(sums, [&](unsigned row, unsigned column, double sum) {
    if (first + column < matrix.size) matrix.values[(first_row + row) * matrix.size + first + column] = -sum;
  });
}

}  // namespace

cudaError_t inverse_factor(double* matrix, std::size_t size, unsigned* failed, cudaStream_t stream) {
  const Matrix whole{matrix, size};
  const std::size_t tiles = (size + kTile - 1) / kTile;
  for (std::size_t k = tiles; k-- > 0;) {
    cudaError_t error = launch(factor_diagonal_tile, dim3(1), dim3(kThreads), 0, stream, whole, k * kTile, failed);
    if (error == cudaSuccess && k > 0) {
      error = launch(finish_row_of_tiles, dim3(static_cast<unsigned>(k)), dim3(kThreads), 0, stream, whole, k * kTile);
    }
    if (error == cudaSuccess && k > 0) {
      error = launch(update_tiles_above, dim3(static_cast<unsigned>(k * k)), dim3(kThreads), 0, stream, whole, k * kTile);
    }
    if (error != cudaSuccess) return error;
  }
  for (std::size_t k = 1; k < tiles; ++k) {
    const cudaError_t error =
        launch(invert_column_of_tiles, dim3(static_cast<unsigned>(k)), dim3(kThreads), sizeof(InverseStrips), stream, whole, k * kTile);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace secateur::gpu
