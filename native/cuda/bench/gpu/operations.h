// Every operation of the CUDA backend by itself, at the shapes of one block, with what it has to compute and to move.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cuda/kernels/matrix_product_f32.h"
#include "cuda/kernels/matrix_product_narrow.h"

namespace secateur::bench {

struct BlockShape {
  std::size_t tokens;
  std::size_t hidden;
  std::size_t intermediate;
  std::size_t heads;
  std::size_t key_heads;
  std::size_t head_size;
  // Tokens of one window of calibration text; divides `tokens`.
  std::size_t window;
  // Of the allocation.
  std::size_t samples;
  // Words of one tile of logits.
  std::size_t words;
};

// Qwen2.5-7B, one window of the published calibration.
inline constexpr BlockShape kQwen7B = {2048, 3584, 18944, 28, 4, 128, 2048, 128, 4096};
// For the emulation.
inline constexpr BlockShape kTiny = {24, 64, 96, 4, 2, 16, 12, 8, 40};

// What bounds an operation beside the memory: float32 or float64 arithmetic, or bfloat16 on tensor cores.
enum class Arithmetic { kF32, kF64, kBF16 };
const char* name_of(Arithmetic arithmetic);

struct Operation {
  std::string name;
  Arithmetic arithmetic;
  double flops;
  // That every value it needs crosses the memory once.
  double bytes;
  std::function<cudaError_t(cudaStream_t)> start;
};

// Products by another library than the kernels of ours; may be empty.
struct Products {
  std::function<cudaError_t(const gpu::MatrixProductF32&, cudaStream_t)> f32;
  std::function<cudaError_t(const gpu::MatrixProductNarrow<gpu::bfloat16>&, cudaStream_t)> bf16;
};

class Operations {
 public:
  // Without a device the operations cannot be started, only their figures read. Throws std::runtime_error when the device has no memory
  // left.
  Operations(const BlockShape& shape, bool on_device, Products library = {});
  ~Operations();
  Operations(const Operations&) = delete;
  Operations& operator=(const Operations&) = delete;

  const std::vector<Operation>& all() const { return all_; }

 private:
  struct Memory;
  void add(std::string name, Arithmetic arithmetic, double flops, double bytes, std::function<cudaError_t(cudaStream_t)> start);
  void add_rows(const BlockShape& shape);
  void add_products(const BlockShape& shape, const Products& library);
  void add_allocation(const BlockShape& shape);

  std::unique_ptr<Memory> memory_;
  std::vector<Operation> all_;
};

}  // namespace secateur::bench
