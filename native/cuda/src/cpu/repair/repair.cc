#include "secateur/repair.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <numeric>
#include <string>

#include "cpu/element_type.h"
#include "cpu/repair/admm.h"
#include "cpu/repair/fit_weights.h"
#include "cpu/repair/inverse_factor.h"
#include "cpu/repair/output_error.h"
#include "cpu/repair/shifted_targets.h"
#include "cpu/repair/sparsegpt.h"
#include "cpu/repair/swap.h"
#include "cpu/vector_math.h"
#include "secateur/error.h"

namespace secateur {

namespace {

// A Gram matrix whose factor is not found is damped so many times more, up to the largest share.
constexpr double kDampingRaise = 10;
constexpr double kLargestDamping = 10;
// Of swaps, as a share of the mean diagonal; found by measurement (docs/algorithms.md). Without it swaps serve the few directions in which
// inputs are largest, and the model becomes worse than its projections say.
constexpr double kSwapDamping = 2;

void require_size(std::size_t size, std::size_t expected, const char* what) {
  if (size == expected) return;
  throw Error(ErrorCode::kInvalidArgument,
              "A repair needs " + std::to_string(expected) + " values of " + what + "; " + std::to_string(size) + " were given.");
}

class RowRepair {
 public:
  RowRepair(const RepairInput& input, const RepairOptions& options, MemoryBudget& budget, ThreadPool& pool, CallContext& context)
      : input_(input), options_(options), budget_(budget), pool_(pool), context_(context), gram_(input.gram), targets_(input.weights) {
    require_size(input.weights.size(), input.rows * input.columns, "weights");
    require_size(input.gram.size(), input.columns * input.columns, "the Gram matrix");
    require_size(input.mask.size(), input.rows * mask_bytes(), "the mask");
    if (input.rows == 0 || input.columns == 0) throw Error(ErrorCode::kInvalidArgument, "A repair needs at least one row and one column.");
    if (!(options.damping > 0)) throw Error(ErrorCode::kInvalidArgument, "The damping of a repair must be above 0.");
    require_size(input.held_out_gram.size(), options.swaps == 0 ? 0 : input.gram.size(), "the held-out Gram matrix");
    if (input.drift.size() != (input.columns + input.rows) * input.columns) {
      require_size(input.drift.size(), input.drift.empty() ? 0 : input.columns * input.columns, "the drift of the inputs");
    }
    if (!input.drift.empty() && options.method != Repair::kFit && options.method != Repair::kAdmm) {
      throw Error(ErrorCode::kInvalidArgument, "Kept weights make up for a drift only where they are fitted.");
    }
    if (options.swaps > 0 && options.method != Repair::kNone && options.method != Repair::kFit) {
      throw Error(ErrorCode::kInvalidArgument, "A repair that chooses its own mask leaves nothing to swap.");
    }
  }

  RepairedRows run() && {
    values_ = Buffer<float>(budget_, input_.weights.size(), "repaired weights");
    result_.damping = options_.damping;
    result_.mask.assign(input_.mask.begin(), input_.mask.end());
    count_dropped();
    add_held_out();
    shift();
    std::vector<double> energies(input_.rows);
    measure(nullptr, energies);
    std::vector<double> before(input_.rows);
    measure_mask(before);
    const double given = sum_of(before);
    if (options_.swaps > 0) {
      const double damping = kSwapDamping * mean_diagonal(input_.gram);
      result_.swaps = cpu::swap_weights(
          {input_.rows, input_.columns, targets_, input_.gram, input_.held_out_gram, damping, options_.swaps, result_.mask.data()}, budget_,
          pool_, context_);
      measure_mask(before);
    }
    std::vector<double> after(input_.rows);
    repair(options_.method, before, after);
    if (options_.method == Repair::kAdmm && sum_of(after) > sum_of(before)) {
      // Few weights leave little to choose: the mask as it was given is better.
      std::ranges::copy(input_.mask, result_.mask.begin());
      mask_weights(values_.data());
      repair(Repair::kFit, before, after);
    }
    const double energy = sum_of(energies);
    result_.error_before_swaps = energy > 0 ? given / energy : 0;
    result_.error_before = energy > 0 ? sum_of(before) / energy : 0;
    result_.error_after = energy > 0 ? sum_of(after) / energy : 0;
    result_.weights.resize(input_.weights.size() * bytes_of(input_.stored));
    cpu::narrow(input_.stored, values_.data(), values_.size(), result_.weights.data());
    return std::move(result_);
  }

 private:
  static double sum_of(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }
  std::size_t mask_bytes() const { return (input_.columns + 7) / 8; }
  bool is_dropped(std::size_t row, std::size_t column) const {
    return (result_.mask[row * mask_bytes() + column / 8] >> column % 8 & 1U) != 0;
  }

  void repair(Repair method, const std::vector<double>& before, std::vector<double>& after) {
    switch (method) {
      case Repair::kNone:
        break;
      case Repair::kFit:
        fit();
        break;
      case Repair::kAdmm:
        choose_and_fit();
        break;
      case Repair::kSparseGpt:
        prune_columns();
        break;
    }
    count_dropped();
    round_values();
    measure(values_.data(), after);
    if (method == Repair::kFit) keep_better_rows(before, after);
  }

  void count_dropped() {
    result_.dropped = 0;
    result_.dropped_per_row.assign(input_.rows, 0);
    for (std::size_t row = 0; row < input_.rows; ++row) {
      for (std::size_t byte = 0; byte < mask_bytes(); ++byte) {
        result_.dropped_per_row[row] += std::popcount(result_.mask[row * mask_bytes() + byte]);
      }
      result_.dropped += static_cast<std::uint64_t>(result_.dropped_per_row[row]);
    }
  }

  void measure(const float* pruned, std::vector<double>& errors) {
    cpu::measure_output_error(targets_, pruned, gram_, errors, budget_, pool_, context_);
  }

  // Of what is kept as it was, which the values then are.
  void measure_mask(std::vector<double>& errors) {
    mask_weights(values_.data());
    measure(values_.data(), errors);
  }

  // Only swaps tell samples apart.
  void add_held_out() {
    if (input_.held_out_gram.empty()) return;
    sum_ = Buffer<float>(budget_, input_.gram.size(), "the Gram matrix of all samples");
    std::ranges::transform(input_.gram, input_.held_out_gram, sum_.data(), std::plus<>());
    gram_ = sum_.span();
  }

  void shift() {
    if (input_.drift.empty()) return;
    shifted_ = Buffer<float>(budget_, input_.weights.size(), "the targets of a projection");
    // Damping alone is enough for inputs that are always 0, unless all are.
    Buffer<float> factor = find_factor(mean_diagonal(gram_) > 0 ? 0.0F : 1.0F);
    for (std::size_t row = 1; row < input_.columns; ++row) std::fill_n(factor.data() + row * input_.columns, row, 0.0F);
    cpu::shift_targets({input_.rows, input_.columns, input_.weights, input_.drift, factor.data()}, shifted_.data(), budget_, pool_,
                       context_);
    targets_ = shifted_.span();
  }

  void mask_row(std::size_t row, float* values) const {
    const float* const dense = input_.weights.data() + row * input_.columns;
    for (std::size_t column = 0; column < input_.columns; ++column) values[column] = is_dropped(row, column) ? 0.0F : dense[column];
  }

  void mask_weights(float* values) const {
    for (std::size_t row = 0; row < input_.rows; ++row) mask_row(row, values + row * input_.columns);
  }

  double mean_diagonal(std::span<const float> gram) const {
    double sum = 0;
    for (std::size_t column = 0; column < input_.columns; ++column) sum += static_cast<double>(gram[column * input_.columns + column]);
    return sum / static_cast<double>(input_.columns);
  }

  void fit() {
    const double damping = options_.damping * mean_diagonal(gram_);
    cpu::fit_weights({input_.rows, input_.columns, targets_, gram_, damping, result_.mask, options_.iterations, values_.data()}, budget_,
                     pool_, context_);
  }

  void choose_and_fit() {
    const std::vector<std::int32_t> counts = result_.dropped_per_row;
    cpu::choose_by_admm({input_.rows, input_.columns, targets_, gram_, counts, options_.across_rows, values_.data(), result_.mask.data()},
                        budget_, pool_, context_);
    fit();
  }

  // The damping also counts changes that no output shows: a row that became worse for it keeps its weights.
  void keep_better_rows(const std::vector<double>& before, std::vector<double>& after) {
    for (std::size_t row = 0; row < input_.rows; ++row) {
      if (after[row] <= before[row]) continue;
      mask_row(row, values_.data() + row * input_.columns);
      after[row] = before[row];
    }
  }

  // To what is stored, whose output counts.
  void round_values() {
    std::vector<std::uint8_t> row_bytes(input_.columns * bytes_of(input_.stored));
    for (std::size_t row = 0; row < input_.rows; ++row) {
      float* const values = values_.data() + row * input_.columns;
      cpu::narrow(input_.stored, values, input_.columns, row_bytes.data());
      cpu::widen(input_.stored, row_bytes.data(), input_.columns, values);
      if (!cpu::vector_math().all_finite(values, input_.columns)) {
        throw Error(ErrorCode::kNonFinite, "The repaired weights of row " + std::to_string(row) + " are too large for their type.");
      }
    }
  }

  void prune_columns() {
    // The published code gives dead columns such a diagonal.
    const Buffer<float> factor = find_factor(static_cast<float>(input_.samples) / 2);
    // What an input that is always 0 is multiplied with costs nothing.
    for (std::size_t i = 0; i < input_.weights.size(); ++i) {
      const std::size_t column = i % input_.columns;
      values_[i] = gram_[column * input_.columns + column] == 0 ? 0.0F : input_.weights[i];
    }
    std::ranges::fill(result_.mask, std::uint8_t{0});
    const std::vector<std::int32_t> counts = result_.dropped_per_row;
    cpu::sparsegpt({input_.rows, input_.columns, factor.data(), counts, options_.across_rows, values_.data(), result_.mask.data()}, budget_,
                   pool_, context_);
  }

  // Of the damped Gram matrix, whose dead columns get a diagonal before.
  Buffer<float> find_factor(float of_dead) {
    const std::size_t columns = input_.columns;
    Buffer<float> factor(budget_, columns * columns, "the factor of a Gram matrix");
    for (double damping = options_.damping; damping <= kLargestDamping; damping *= kDampingRaise) {
      std::copy(gram_.begin(), gram_.end(), factor.data());
      double sum = 0;
      for (std::size_t column = 0; column < columns; ++column) {
        float& diagonal = factor[column * columns + column];
        if (diagonal == 0) diagonal = of_dead;
        sum += static_cast<double>(diagonal);
      }
      const auto added = static_cast<float>(damping * sum / static_cast<double>(columns));
      for (std::size_t column = 0; column < columns; ++column) factor[column * columns + column] += added;
      result_.damping = damping;
      if (cpu::inverse_factor(factor.data(), columns, pool_, context_)) return factor;
    }
    throw Error(ErrorCode::kNonFinite, "The Gram matrix of the inputs has no Cholesky factor, even with " +
                                           std::to_string(result_.damping) + " of its mean diagonal added.");
  }

  const RepairInput& input_;
  const RepairOptions& options_;
  MemoryBudget& budget_;
  ThreadPool& pool_;
  CallContext& context_;
  // [columns, columns]: of all samples, where some are held out their sum.
  std::span<const float> gram_;
  Buffer<float> sum_;
  // [rows, columns]: the weights that values are to come close to; the dense ones, or those that make up for a drift.
  std::span<const float> targets_;
  Buffer<float> shifted_;
  // [rows, columns]
  Buffer<float> values_;
  RepairedRows result_;
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
  return RowRepair(input, options, budget, pool, context).run();
}

}  // namespace secateur
