#include "cpu/sparse_matrix.h"

#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <random>
#include <type_traits>
#include <vector>

#include "cpu/pair_math.h"
#include "cpu/vector_math.h"

namespace cpu = secateur::cpu;
using namespace secateur;

namespace {

constexpr std::size_t kPairTokens = 32;

float rounded(float value) {
  std::uint16_t bits = 0;
  cpu::vector_math().narrow_bf16(&value, 1, &bits);
  cpu::vector_math().widen_bf16(&bits, 1, &value);
  return value;
}

// Values that bfloat16 has too, so that float64 gives what either kind of product should.
template <class Value>
void check_products() {
  MemoryBudget budget(std::uint64_t{1} << 30);
  ThreadPool pool(2);
  CallContext context;
  std::mt19937 generator(3);
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<double> uniform;
  for (const std::size_t rows : {std::size_t{1}, std::size_t{7}, std::size_t{130}}) {
    for (const std::size_t columns : {std::size_t{1}, std::size_t{63}, std::size_t{64}, std::size_t{65}, std::size_t{300}}) {
      for (const double sparsity : {0.0, 0.8, 1.0}) {
        CAPTURE(rows);
        CAPTURE(columns);
        CAPTURE(sparsity);
        std::vector<float> weights(rows * columns);
        std::size_t kept = 0;
        for (float& weight : weights) {
          weight = uniform(generator) < sparsity ? 0.0F : rounded(normal(generator));
          kept += weight != 0.0F ? 1 : 0;
        }
        const std::uint64_t used = budget.used_bytes();
        const cpu::SparseMatrix<Value> matrix(budget, pool, context, rows, columns, weights.data(), "a test");
        CHECK(matrix.kept() == kept);
        CHECK(budget.used_bytes() - used <= cpu::SparseMatrix<Value>::bytes(rows, columns, kept));
        Buffer<float> inputs(budget, columns * cpu::kTokenPanel, "inputs");
        Buffer<float> sums(budget, rows * cpu::kTokenPanel + 1, "sums");
        for (float& input : inputs.span()) input = rounded(normal(generator));
        sums[rows * cpu::kTokenPanel] = -7.0F;
        if constexpr (std::is_same_v<Value, float>) {
          matrix.multiply(inputs.data(), sums.data());
        } else {
          Buffer<std::uint16_t> narrowed(budget, inputs.size(), "inputs");
          cpu::pair_math()->narrow(inputs.data(), inputs.size(), narrowed.data());
          matrix.multiply(narrowed.data(), sums.data());
        }
        CHECK(sums[rows * cpu::kTokenPanel] == -7.0F);
        for (std::size_t row = 0; row < rows; ++row) {
          for (std::size_t token = 0; token < cpu::kTokenPanel; ++token) {
            double expected = 0;
            double magnitude = 0;
            for (std::size_t column = 0; column < columns; ++column) {
              const double product =
                  static_cast<double>(weights[row * columns + column]) * static_cast<double>(inputs[column * cpu::kTokenPanel + token]);
              expected += product;
              magnitude += std::abs(product);
            }
            REQUIRE(std::abs(static_cast<double>(sums[row * cpu::kTokenPanel + token]) - expected) <= 1e-6 * magnitude);
          }
        }
      }
    }
  }
  CHECK(budget.used_bytes() == 0);
}

}  // namespace

TEST_CASE("a sparse product agrees with float64 for every shape of rows and columns") { check_products<float>(); }

TEST_CASE("so does one of bfloat16 values, where the processor has products of pairs") {
  if (cpu::pair_math() == nullptr) {
    MESSAGE("skipped: this processor has no AVX512_BF16, or another instruction set was selected");
    return;
  }
  check_products<std::uint16_t>();
}

TEST_CASE("narrowed values are rounded as others are, and those of both halves of 32 take turns by fours") {
  if (cpu::pair_math() == nullptr) {
    MESSAGE("skipped: this processor has no AVX512_BF16, or another instruction set was selected");
    return;
  }
  MemoryBudget budget(std::uint64_t{1} << 20);
  Buffer<float> values(budget, 2 * kPairTokens, "values");
  Buffer<std::uint16_t> narrowed(budget, values.size(), "narrowed values");
  std::mt19937 generator(5);
  std::normal_distribution<float> normal;
  for (float& value : values.span()) value = normal(generator);
  // In the middle of two bfloat16 values.
  values[3] = 1.00390625F;
  values[4] = 1.01171875F;
  cpu::pair_math()->narrow(values.data(), values.size(), narrowed.data());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::size_t within = i % kPairTokens;
    const std::size_t token = i - within + within / 8 * 4 + within % 4 + (within % 8 < 4 ? 0 : kPairTokens / 2);
    std::uint16_t expected = 0;
    cpu::vector_math().narrow_bf16(&values[token], 1, &expected);
    CHECK(narrowed[i] == expected);
  }
}

TEST_CASE("the sums of kept values are the same kind on every instruction set") {
  MemoryBudget budget(std::uint64_t{1} << 20);
  // Row 0 keeps columns 1 and 3, row 1 none, row 2 column 0.
  const std::uint32_t starts[] = {0, 2, 2, 3};
  const std::uint8_t columns[] = {1, 3, 0};
  const float values[] = {2.0F, -1.0F, 0.5F};
  Buffer<float> inputs(budget, 4 * cpu::kTokenPanel, "inputs");
  Buffer<float> sums(budget, 3 * cpu::kTokenPanel, "sums");
  for (std::size_t i = 0; i < inputs.size(); ++i) inputs[i] = static_cast<float>(i);
  for (const cpu::InstructionSet instruction_set : cpu::supported_instruction_sets()) {
    CAPTURE(cpu::name_of(instruction_set));
    std::fill(sums.data(), sums.data() + sums.size(), 1.0F);
    cpu::vector_math(instruction_set).add_sparse_products(starts, columns, values, 3, inputs.data(), sums.data());
    for (std::size_t token = 0; token < cpu::kTokenPanel; ++token) {
      const float* const input = inputs.data() + token;
      CHECK(sums[token] == 1.0F + 2.0F * input[cpu::kTokenPanel] - input[3 * cpu::kTokenPanel]);
      CHECK(sums[cpu::kTokenPanel + token] == 1.0F);
      CHECK(sums[2 * cpu::kTokenPanel + token] == 1.0F + 0.5F * input[0]);
    }
  }
}

TEST_CASE("making a sparse matrix can be cancelled") {
  MemoryBudget budget(std::uint64_t{1} << 20);
  ThreadPool pool(1);
  const std::atomic<bool> cancelled{true};
  CallContext context(&cancelled);
  const std::vector<float> weights(100, 1.0F);
  CHECK_THROWS_AS(cpu::SparseMatrix<float>(budget, pool, context, 10, 10, weights.data(), "a test"), Error);
  CHECK(budget.used_bytes() == 0);
}
