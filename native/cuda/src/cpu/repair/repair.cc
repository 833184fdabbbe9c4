#include "secateur/repair.h"

#include <algorithm>
#include <functional>
#include <string>

#include "cpu/element_type.h"
#include "cpu/repair/admm.h"
#include "cpu/repair/fit_weights.h"
#include "cpu/repair/inverse_factor.h"
#include "cpu/repair/output_error.h"
#include "cpu/repair/repair_steps.h"
#include "cpu/repair/shifted_targets.h"
#include "cpu/repair/sparsegpt.h"
#include "cpu/repair/swap.h"
#include "cpu/vector_math.h"
#include "secateur/error.h"

namespace secateur {

namespace {

class HostRepair final : public RepairSteps {
 public:
  HostRepair(const RepairInput& input, MemoryBudget& budget, ThreadPool& pool, CallContext& context)
      : input_(input),
        budget_(budget),
        pool_(pool),
        context_(context),
        gram_(input.gram),
        targets_(input.weights),
        values_(budget, input.weights.size(), "repaired weights") {}

  void add_held_out() override {
    sum_ = Buffer<float>(budget_, input_.gram.size(), "the Gram matrix of all samples");
    std::ranges::transform(input_.gram, input_.held_out_gram, sum_.data(), std::plus<>());
    gram_ = sum_.span();
  }

  bool find_factor(float of_dead, double damping) override {
    const std::size_t columns = input_.columns;
    if (factor_.empty()) factor_ = Buffer<float>(budget_, columns * columns, "the factor of a Gram matrix");
    std::copy(gram_.begin(), gram_.end(), factor_.data());
    double sum = 0;
    for (std::size_t column = 0; column < columns; ++column) {
      float& diagonal = factor_[column * columns + column];
      if (diagonal == 0) diagonal = of_dead;
      sum += static_cast<double>(diagonal);
    }
    const auto added = static_cast<float>(damping * sum / static_cast<double>(columns));
    for (std::size_t column = 0; column < columns; ++column) factor_[column * columns + column] += added;
    return cpu::inverse_factor(factor_.data(), columns, pool_, context_);
  }

  void shift_targets() override {
    shifted_ = Buffer<float>(budget_, input_.weights.size(), "the targets of a projection");
    for (std::size_t row = 1; row < input_.columns; ++row) std::fill_n(factor_.data() + row * input_.columns, row, 0.0F);
    cpu::shift_targets({input_.rows, input_.columns, input_.weights, input_.drift, factor_.data()}, shifted_.data(), budget_, pool_,
                       context_);
    targets_ = shifted_.span();
    factor_ = {};
  }

  void mask_values(std::span<const std::uint8_t> mask, std::span<const std::uint8_t> marked) override {
    const std::size_t row_bytes = (input_.columns + 7) / 8;
    for (std::size_t row = 0; row < input_.rows; ++row) {
      if (!marked.empty() && marked[row] == 0) continue;
      const std::uint8_t* const bits = mask.data() + row * row_bytes;
      const float* const dense = input_.weights.data() + row * input_.columns;
      float* const values = values_.data() + row * input_.columns;
      for (std::size_t column = 0; column < input_.columns; ++column) {
        values[column] = (bits[column / 8] >> column % 8 & 1U) != 0 ? 0.0F : dense[column];
      }
    }
  }

  void measure_targets(std::span<double> energies) override { measure(nullptr, energies); }
  void measure_values(std::span<double> errors) override { measure(values_.data(), errors); }

  std::uint64_t swap(double damping, std::size_t most, std::span<std::uint8_t> mask) override {
    return cpu::swap_weights({input_.rows, input_.columns, targets_, input_.gram, input_.held_out_gram, damping, most, mask.data()},
                             budget_, pool_, context_);
  }

  void fit(double damping, int iterations, std::span<const std::uint8_t> mask) override {
    cpu::fit_weights({input_.rows, input_.columns, targets_, gram_, damping, mask, iterations, values_.data()}, budget_, pool_, context_);
  }

  void choose_by_admm(std::span<const std::int32_t> counts, bool across_rows, std::span<std::uint8_t> mask) override {
    cpu::choose_by_admm({input_.rows, input_.columns, targets_, gram_, counts, across_rows, values_.data(), mask.data()}, budget_, pool_,
                        context_);
  }

  void prune_columns(std::span<const std::int32_t> counts, bool across_rows, std::span<std::uint8_t> mask) override {
    // What an input that is always 0 is multiplied with costs nothing.
    for (std::size_t i = 0; i < input_.weights.size(); ++i) {
      const std::size_t column = i % input_.columns;
      values_[i] = gram_[column * input_.columns + column] == 0 ? 0.0F : input_.weights[i];
    }
    cpu::sparsegpt({input_.rows, input_.columns, factor_.data(), counts, across_rows, values_.data(), mask.data()}, budget_, pool_,
                   context_);
    factor_ = {};
  }

  void round_values(ElementType stored) override {
    std::vector<std::uint8_t> row_bytes(input_.columns * bytes_of(stored));
    for (std::size_t row = 0; row < input_.rows; ++row) {
      float* const values = values_.data() + row * input_.columns;
      cpu::narrow(stored, values, input_.columns, row_bytes.data());
      cpu::widen(stored, row_bytes.data(), input_.columns, values);
      if (!cpu::vector_math().all_finite(values, input_.columns)) {
        throw Error(ErrorCode::kNonFinite, "The repaired weights of row " + std::to_string(row) + " are too large for their type.");
      }
    }
  }

  std::vector<std::uint8_t> read_values(ElementType stored) override {
    std::vector<std::uint8_t> bytes(input_.weights.size() * bytes_of(stored));
    cpu::narrow(stored, values_.data(), values_.size(), bytes.data());
    return bytes;
  }

 private:
  void measure(const float* pruned, std::span<double> errors) {
    cpu::measure_output_error(targets_, pruned, gram_, errors, budget_, pool_, context_);
  }

  const RepairInput& input_;
  MemoryBudget& budget_;
  ThreadPool& pool_;
  CallContext& context_;
  // [columns, columns]: of all samples, where some are held out their sum.
  std::span<const float> gram_;
  Buffer<float> sum_;
  Buffer<float> factor_;
  // [rows, columns]: the weights that values are to come close to; the dense ones, or those that make up for a drift.
  std::span<const float> targets_;
  Buffer<float> shifted_;
  // [rows, columns]
  Buffer<float> values_;
};

}  // namespace

std::uint64_t repair_bytes(std::size_t rows, std::size_t columns, Repair method, RepairExtras extras, std::size_t threads) {
  if (method == Repair::kNone && !extras.swaps) return 0;
  std::uint64_t own = method == Repair::kNone ? 0 : cpu::fit_bytes(columns, threads);
  if (method == Repair::kAdmm) own = std::max(own, cpu::admm_bytes(rows, columns, threads));
  if (method == Repair::kSparseGpt) own = columns * columns * sizeof(float) + cpu::sparsegpt_bytes(rows, threads);
  if (extras.swaps) own = std::max(own, cpu::swap_bytes(columns, threads));
  if (extras.drift) own = std::max(own, columns * columns * sizeof(float) + cpu::shift_bytes(columns, threads));
  const std::uint64_t shifted = extras.drift ? rows * columns * sizeof(float) : 0;
  const std::uint64_t sum = extras.swaps ? columns * columns * sizeof(float) : 0;
  return rows * columns * sizeof(float) + shifted + sum + std::max(own, cpu::output_error_bytes(columns, threads));
}

RepairedRows repair_rows(const RepairInput& input, const RepairOptions& options, MemoryBudget& budget, ThreadPool& pool,
                         CallContext& context) {
  if (input.weights.size() != input.rows * input.columns) {
    throw Error(ErrorCode::kInvalidArgument, "A repair needs " + std::to_string(input.rows * input.columns) + " values of weights; " +
                                                 std::to_string(input.weights.size()) + " were given.");
  }
  require_valid_repair(input, options);
  HostRepair steps(input, budget, pool, context);
  return repair_by_steps(input, options, steps);
}

}  // namespace secateur
