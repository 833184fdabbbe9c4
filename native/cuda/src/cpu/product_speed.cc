#include "cpu/product_speed.h"

#include <chrono>
#include <optional>

#include "cpu/gemm.h"

namespace secateur::cpu {

namespace {

// Of the matrices, which stay in a core's cache.
constexpr std::size_t kSize = 256;
constexpr std::chrono::duration<double> kLongEnough(0.01);

}  // namespace

double measure_product_speed(Compute compute, MemoryBudget& budget, ThreadPool& pool, CallContext& context) {
  constexpr std::size_t kMatrix = kSize * kSize;
  Buffer<float> inputs(budget, kMatrix, "matrices to multiply");
  Buffer<std::uint16_t> narrow(budget, kMatrix, "matrices to multiply");
  Buffer<float> products(budget, pool.size() * kMatrix, "their products");
  // Zeros are multiplied as fast as anything.
  std::fill_n(inputs.data(), kMatrix, 0.0F);
  std::fill_n(narrow.data(), kMatrix, std::uint16_t{0});
  std::optional<PackedMatrix> packed;
  if (compute == Compute::kBF16) {
    packed.emplace(budget, kSize, kSize, kSize, "matrices to multiply");
    packed->pack(0, inputs.data());
  }
  const auto multiply_for = [&](std::size_t rounds) {
    const auto start = std::chrono::steady_clock::now();
    pool.parallel_for(pool.size() * rounds, [&](std::size_t, std::size_t worker) {
      context.check();
      float* const product = products.data() + worker * kMatrix;
      if (packed) {
        packed->multiply(0, kSize, narrow.data(), product);
      } else {
        multiply_transposed(kSize, kSize, kSize, 1.0F, inputs.data(), kSize, inputs.data(), kSize, product, kSize);
      }
    });
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start);
  };
  // The library makes its code at the first product.
  multiply_for(1);
  for (std::size_t rounds = 1;; rounds *= 2) {
    const std::chrono::duration<double> taken = multiply_for(rounds);
    if (taken < kLongEnough) continue;
    return 2.0 * static_cast<double>(kSize * kMatrix * pool.size() * rounds) / taken.count();
  }
}

}  // namespace secateur::cpu
