// The few functions of cuBLASLt that the engine calls, declared here and found at run time: no header and no link dependency. Enumerations
// are ints with the values of cublasLt.h, which the C interface has kept since CUDA 11.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace secateur::gpu {

struct CublasLt {
  static constexpr int kSuccess = 0;
  // cudaDataType
  static constexpr int kF32 = 0;
  static constexpr int kF16 = 2;
  static constexpr int kBF16 = 14;
  // cublasComputeType_t: float32 sums; products of float32 are exact, not TF32.
  static constexpr int kComputeF32 = 68;
  // cublasOperation_t
  static constexpr std::int32_t kTransposed = 1;
  // cublasLtMatmulDescAttributes_t
  static constexpr int kTransposeLeft = 3;
  static constexpr int kEpilogue = 7;
  static constexpr int kBiasPointer = 8;
  // cublasLtEpilogue_t
  static constexpr std::uint32_t kAddBias = 4;
  // cublasLtMatmulPreferenceAttributes_t
  static constexpr int kMaximumWorkspace = 1;
  static constexpr int kAlignmentLeft = 5;
  static constexpr int kAlignmentRight = 6;
  static constexpr int kAlignmentAddend = 7;
  static constexpr int kAlignmentResult = 8;

  struct Algorithm {
    std::uint64_t data[8];
  };
  struct Heuristic {
    Algorithm algorithm;
    std::size_t workspace_bytes;
    int status;
    float waves;
    int reserved[4];
  };

  // Handles, descriptions, layouts and preferences are opaque pointers. Every function gives a status.
  int (*create)(void** handle);
  int (*destroy)(void* handle);
  int (*create_description)(void** description, int compute_type, int scale_type);
  int (*destroy_description)(void* description);
  int (*set_description)(void* description, int attribute, const void* value, std::size_t bytes);
  int (*create_layout)(void** layout, int type, std::uint64_t rows, std::uint64_t columns, std::int64_t stride);
  int (*destroy_layout)(void* layout);
  int (*create_preference)(void** preference);
  int (*destroy_preference)(void* preference);
  int (*set_preference)(void* preference, int attribute, const void* value, std::size_t bytes);
  int (*find_algorithms)(void* handle, void* description, void* left, void* right, void* addend, void* result, void* preference,
                         int requested, Heuristic* found, int* found_count);
  int (*multiply)(void* handle, void* description, const void* alpha, const void* left, void* left_layout, const void* right,
                  void* right_layout, const void* beta, const void* addend, void* addend_layout, void* result, void* result_layout,
                  const Algorithm* algorithm, void* workspace, std::size_t workspace_bytes, cudaStream_t stream);
  // "13.1.0"
  std::string version;
};

// Looks for version 13, then 12: in the folder of the environment variable SECATEUR_CUBLAS_DIR if that is set, and only there; else where
// the loader looks, in CUDA_HOME/lib64 and next to this program's own library. Returns why there is none to use, or nothing. The library
// stays loaded: its threads and device state may outlive whoever asked.
std::string load_cublas_lt(CublasLt& functions);

}  // namespace secateur::gpu
