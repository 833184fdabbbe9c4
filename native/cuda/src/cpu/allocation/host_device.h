// For arithmetic that the CPU's search shares with the CUDA kernels: C++17, with nothing of the library but what CUDA has.
#pragma once

#if defined(__CUDACC__)
#define SECATEUR_HOST_DEVICE __host__ __device__
#else
#define SECATEUR_HOST_DEVICE
#endif

namespace secateur::allocation {

// Rounded by itself, where a compiler for GPUs would fuse it with the sum it goes into and change the last bit.
SECATEUR_HOST_DEVICE inline double rounded_product(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}

}  // namespace secateur::allocation
