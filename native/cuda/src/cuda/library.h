// What libsecateur_cuda.so exports, as C so that it can be opened at run time where a driver is, by a program built by any compiler.
// Device pointers and streams are those of the CUDA runtime inside the library.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define SECATEUR_CUDA_ABI_VERSION 1

#if defined(__GNUC__)
#define SECATEUR_CUDA_EXPORT __attribute__((visibility("default")))
#else
#define SECATEUR_CUDA_EXPORT
#endif

#if defined(__cplusplus)
extern "C" {
#endif

struct secateur_cuda_curve_point {
  float aligned;
  float residual;
};

// Fields as in quality_curves.h.
struct secateur_cuda_quality_curves_task {
  uint64_t rows;
  uint64_t columns;
  uint64_t samples;
  const float* weights;
  const uint32_t* orders;
  const float* inputs;
  const float* outputs;
  struct secateur_cuda_curve_point* points;
  double* dense_squared_norms;
};

// Must equal SECATEUR_CUDA_ABI_VERSION of the caller; nothing else may be called when it does not.
SECATEUR_CUDA_EXPORT int32_t secateur_cuda_abi_version(void);

// Number of usable devices. Writes why, for people, into reason (cut to its capacity, always terminated); never fails without a driver.
SECATEUR_CUDA_EXPORT int32_t secateur_cuda_query_devices(char* reason, size_t reason_capacity);

// The operations return 0 or an error whose text this gives; they start the work on the stream and do not wait for it.
SECATEUR_CUDA_EXPORT const char* secateur_cuda_error_text(int32_t error);
SECATEUR_CUDA_EXPORT int32_t secateur_cuda_column_sums_of_squares(const float* inputs, uint64_t tokens, uint64_t columns, double* sums,
                                                                  void* stream);
SECATEUR_CUDA_EXPORT int32_t secateur_cuda_quality_curves(const struct secateur_cuda_quality_curves_task* task, void* stream);

#if defined(__cplusplus)
}
#endif
