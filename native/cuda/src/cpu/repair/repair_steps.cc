#include "cpu/repair/repair_steps.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <string>

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

std::size_t mask_bytes(const RepairInput& input) { return (input.columns + 7) / 8; }

class RowRepair {
 public:
  RowRepair(const RepairInput& input, const RepairOptions& options, RepairSteps& steps) : input_(input), options_(options), steps_(steps) {}

  RepairedRows run() && {
    result_.damping = options_.damping;
    result_.mask.assign(input_.mask.begin(), input_.mask.end());
    count_dropped();
    if (!input_.held_out_gram.empty()) steps_.add_held_out();
    shift();
    std::vector<double> energies(input_.rows);
    steps_.measure_targets(energies);
    std::vector<double> before(input_.rows);
    measure_mask(before);
    const double given = sum_of(before);
    if (options_.swaps > 0) {
      const double damping = kSwapDamping * mean_diagonal({});
      result_.swaps = steps_.swap(damping, options_.swaps, result_.mask);
      measure_mask(before);
    }
    std::vector<double> after(input_.rows);
    repair(options_.method, before, after);
    if (options_.method == Repair::kAdmm && sum_of(after) > sum_of(before)) {
      // Few weights leave little to choose: the mask as it was given is better.
      std::ranges::copy(input_.mask, result_.mask.begin());
      steps_.mask_values(result_.mask);
      repair(Repair::kFit, before, after);
    }
    const double energy = sum_of(energies);
    result_.error_before_swaps = energy > 0 ? given / energy : 0;
    result_.error_before = energy > 0 ? sum_of(before) / energy : 0;
    result_.error_after = energy > 0 ? sum_of(after) / energy : 0;
    result_.weights = steps_.read_values(input_.stored);
    return std::move(result_);
  }

 private:
  static double sum_of(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

  void repair(Repair method, const std::vector<double>& before, std::vector<double>& after) {
    switch (method) {
      case Repair::kNone:
        break;
      case Repair::kFit:
        fit();
        break;
      case Repair::kAdmm:
        steps_.choose_by_admm(std::vector(result_.dropped_per_row), options_.across_rows, result_.mask);
        fit();
        break;
      case Repair::kSparseGpt:
        // The published code gives dead columns such a diagonal.
        find_factor(static_cast<float>(input_.samples) / 2);
        std::ranges::fill(result_.mask, std::uint8_t{0});
        steps_.prune_columns(result_.dropped_per_row, options_.across_rows, result_.mask);
        break;
    }
    count_dropped();
    steps_.round_values(input_.stored);
    steps_.measure_values(after);
    if (method == Repair::kFit) keep_better_rows(before, after);
  }

  void count_dropped() {
    result_.dropped = 0;
    result_.dropped_per_row.assign(input_.rows, 0);
    const std::size_t row_bytes = mask_bytes(input_);
    for (std::size_t row = 0; row < input_.rows; ++row) {
      for (std::size_t byte = 0; byte < row_bytes; ++byte) {
        result_.dropped_per_row[row] += std::popcount(result_.mask[row * row_bytes + byte]);
      }
      result_.dropped += static_cast<std::uint64_t>(result_.dropped_per_row[row]);
    }
  }

  // Of what is kept as it was, which the values then are.
  void measure_mask(std::vector<double>& errors) {
    steps_.mask_values(result_.mask);
    steps_.measure_values(errors);
  }

  void shift() {
    if (input_.drift.empty()) return;
    // Damping alone is enough for inputs that are always 0, unless all are.
    find_factor(mean_diagonal(input_.held_out_gram) > 0 ? 0.0F : 1.0F);
    steps_.shift_targets();
  }

  // Of the Gram matrix of the samples that swaps are chosen by and, unless they are empty, `others`.
  double mean_diagonal(std::span<const float> others) const {
    double sum = 0;
    for (std::size_t column = 0; column < input_.columns; ++column) {
      const std::size_t place = column * input_.columns + column;
      sum += static_cast<double>(others.empty() ? input_.gram[place] : input_.gram[place] + others[place]);
    }
    return sum / static_cast<double>(input_.columns);
  }

  void fit() { steps_.fit(options_.damping * mean_diagonal(input_.held_out_gram), options_.iterations, result_.mask); }

  // The damping also counts changes that no output shows: a row that became worse for it keeps its weights.
  void keep_better_rows(const std::vector<double>& before, std::vector<double>& after) {
    std::vector<std::uint8_t> worse(input_.rows);
    for (std::size_t row = 0; row < input_.rows; ++row) {
      if (after[row] <= before[row]) continue;
      worse[row] = 1;
      after[row] = before[row];
    }
    if (std::ranges::find(worse, 1) != worse.end()) steps_.mask_values(result_.mask, worse);
  }

  void find_factor(float of_dead) {
    for (double damping = options_.damping; damping <= kLargestDamping; damping *= kDampingRaise) {
      result_.damping = damping;
      if (steps_.find_factor(of_dead, damping)) return;
    }
    throw Error(ErrorCode::kNonFinite, "The Gram matrix of the inputs has no Cholesky factor, even with " +
                                           std::to_string(result_.damping) + " of its mean diagonal added.");
  }

  const RepairInput& input_;
  const RepairOptions& options_;
  RepairSteps& steps_;
  RepairedRows result_;
};

}  // namespace

void require_valid_repair(const RepairInput& input, const RepairOptions& options) {
  require_size(input.gram.size(), input.columns * input.columns, "the Gram matrix");
  require_size(input.mask.size(), input.rows * mask_bytes(input), "the mask");
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

RepairedRows repair_by_steps(const RepairInput& input, const RepairOptions& options, RepairSteps& steps) {
  return RowRepair(input, options, steps).run();
}

}  // namespace secateur
