// Matrix products by cuBLASLt, which is looked for at run time and never needed: without it, or where it gives a wrong product, the kernels
// of ours do the work.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>
#include <string>

#include "cuda/kernels/matrix_product.h"

namespace secateur::gpu {

struct bfloat16;

// For one thread at a time and one device, the one current when it is made.
class MatrixLibrary {
 public:
  // Looks for cuBLASLt 13, then 12: in the folder of the environment variable SECATEUR_CUBLAS_DIR if set, and only there; else where the
  // loader looks, in CUDA_HOME/lib64, next to this program's own library. Compares a small product of each kind with the kernels of ours,
  // for which it waits. Never throws for want of the library.
  explicit MatrixLibrary(cudaStream_t stream);
  ~MatrixLibrary();
  MatrixLibrary(const MatrixLibrary&) = delete;
  MatrixLibrary& operator=(const MatrixLibrary&) = delete;

  // "cuBLASLt 13.1.0", or "own kernels (why)".
  const std::string& description() const { return description_; }

  // Starts the product; semantics of matrix_product_f32 and matrix_product_bf16. Which algorithm cuBLASLt takes, and so the bits, depends
  // on all sizes, strides and alignments. No product of two streams at the same time: they share the work space.
  cudaError_t multiply(const MatrixProduct<float>& task, cudaStream_t stream);
  cudaError_t multiply(const MatrixProduct<bfloat16>& task, cudaStream_t stream);

 private:
  class Cublas;

  std::unique_ptr<Cublas> cublas_;
  std::string description_;
};

}  // namespace secateur::gpu
