#include "cuda/kernels/look_up_points.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kThreads = 128;

__global__ void __launch_bounds__(kThreads)
    look_up_kernel(const CurvePoint* points, const std::int32_t* counts, std::size_t rows, std::size_t columns, CurvePoint* found) {
  const std::size_t row = std::size_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row < rows) found[row] = points[row * (columns + 1) + static_cast<std::size_t>(counts[row])];
}

}  // namespace

cudaError_t look_up_points(const CurvePoint* points, const std::int32_t* counts, std::size_t rows, std::size_t columns, CurvePoint* found,
                           cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>((rows + kThreads - 1) / kThreads);
  return launch(look_up_kernel, dim3(blocks), dim3(kThreads), 0, stream, points, counts, rows, columns, found);
}

}  // namespace secateur::gpu
