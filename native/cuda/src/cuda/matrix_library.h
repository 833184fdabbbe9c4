// Matrix products by cuBLASLt, which is looked for at run time and never needed: without it, or where it gives a wrong product, the kernels
// of ours do the work.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>
#include <string>

namespace secateur::gpu {

struct MatrixProductF32;
template <class Narrow>
struct MatrixProductNarrow;
struct bfloat16;
struct float16;

// Device memory of a MatrixLibrary that uses cuBLASLt.
inline constexpr std::size_t kMatrixLibraryBytes = std::size_t{32} << 20;

// For one thread at a time and one device, the one current when it is made and used.
class MatrixLibrary {
 public:
  // Looks for cuBLASLt (cublas_lt.h), takes its device memory and compares a small product of each kind with the kernels of ours, for which
  // it waits. Whatever goes wrong, it falls back on those kernels.
  explicit MatrixLibrary(cudaStream_t stream);
  ~MatrixLibrary();
  MatrixLibrary(const MatrixLibrary&) = delete;
  MatrixLibrary& operator=(const MatrixLibrary&) = delete;

  // "cuBLASLt 13.1.0", or "own kernels (why)".
  const std::string& description() const { return description_; }

  // Starts the product, as matrix_product_f32 and matrix_product_narrow do. Which algorithm cuBLASLt takes, and so the bits, depends on all
  // sizes and alignments. The products share device memory: one stream at a time.
  cudaError_t multiply(const MatrixProductF32& task, cudaStream_t stream);
  cudaError_t multiply(const MatrixProductNarrow<bfloat16>& task, cudaStream_t stream);
  cudaError_t multiply(const MatrixProductNarrow<float16>& task, cudaStream_t stream);

 private:
  class Products;

  template <class Task>
  cudaError_t multiply_either_way(const Task& task, cudaStream_t stream);

  // Null where the kernels of ours do the work.
  std::unique_ptr<Products> products_;
  std::string description_;
};

}  // namespace secateur::gpu
