// Times every operation of the CUDA backend on the GPU and prints a JSON line for each, with what it computes and moves.
// usage: bench_operations [--tiny] [--figures]      --figures: prints what would be computed and moved, and needs no GPU
#include <algorithm>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <vector>

#include "cuda/matrix_library.h"
#include "cuda/stream.h"
#include "operations.h"

namespace secateur::bench {
namespace {

constexpr int kRounds = 20;

// Milliseconds, the median over rounds after one that is not counted.
double time(const Operation& operation, const gpu::Stream& stream) {
  const gpu::Event begin(cudaEventDefault);
  const gpu::Event end(cudaEventDefault);
  std::vector<float> times;
  for (int round = 0; round <= kRounds; ++round) {
    begin.record(stream);
    gpu::check(operation.start(stream.get()), operation.name.c_str());
    end.record(stream);
    end.wait();
    float milliseconds = 0;
    gpu::check(cudaEventElapsedTime(&milliseconds, begin.get(), end.get()), "timing");
    if (round > 0) times.push_back(milliseconds);
  }
  std::ranges::nth_element(times, times.begin() + kRounds / 2);
  return static_cast<double>(times[kRounds / 2]);
}

void print(const Operation& operation, std::optional<double> milliseconds) {
  std::printf("{\"operation\": \"%s\", \"arithmetic\": \"%s\", \"flops\": %.0f, \"bytes\": %.0f", operation.name.c_str(),
              name_of(operation.arithmetic), operation.flops, operation.bytes);
  if (milliseconds) std::printf(", \"ms\": %.6f", *milliseconds);
  std::printf("}\n");
}

void run(const BlockShape& shape) {
  const gpu::Stream stream;
  gpu::MatrixLibrary library(stream.get());
  std::fprintf(stderr, "products: %s\n", library.description().c_str());
  Products products;
  if (library.description().starts_with("cuBLASLt")) {
    products.f32 = [&](const gpu::MatrixProductF32& task, cudaStream_t on) { return library.multiply(task, on); };
    products.bf16 = [&](const gpu::MatrixProductNarrow<gpu::bfloat16>& task, cudaStream_t on) { return library.multiply(task, on); };
  }
  const Operations operations(shape, true, products);
  for (const Operation& operation : operations.all()) print(operation, time(operation, stream));
}

}  // namespace
}  // namespace secateur::bench

int main(int argc, char** argv) {
  using namespace secateur::bench;
  const std::vector<std::string> options(argv + 1, argv + argc);
  const auto has = [&](const char* option) { return std::ranges::find(options, option) != options.end(); };
  const BlockShape& shape = has("--tiny") ? kTiny : kQwen7B;
  try {
    if (has("--figures")) {
      const Operations operations(shape, false);
      for (const Operation& operation : operations.all()) print(operation, std::nullopt);
    } else {
      run(shape);
    }
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
