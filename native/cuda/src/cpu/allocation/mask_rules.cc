#include "mask_rules.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <utility>

#include "checked_input.h"
#include "row_order.h"
#include "search_arithmetic.h"
#include "secateur/error.h"
#include "secateur/thread_pool.h"

namespace secateur::allocation {
namespace {

constexpr std::size_t kTileRows = 16;

// Of the bisection of the variant of Wanda, as published.
constexpr double kFirstShare = 0.4;
constexpr double kHighestShare = 0.8;
constexpr double kShareTolerance = 0.001;

// One thread's memory.
struct Workspace {
  explicit Workspace(std::size_t columns) : keys(columns), order(columns), order_scratch(columns) {}
  static std::uint64_t bytes(std::size_t columns) { return 2 * columns * sizeof(std::uint32_t) + RowOrders::Scratch::bytes(columns); }

  std::vector<std::uint32_t> keys;
  std::vector<std::uint32_t> order;
  RowOrders::Scratch order_scratch;
};

// Of every row the scores in ascending order, and the sum of each with all before it, which ascends too: no score is below 0.
class SortedScores {
 public:
  SortedScores(std::size_t rows, std::size_t columns)
      : columns_(columns),
        scores_(std::make_unique_for_overwrite<float[]>(rows * columns)),
        sums_(std::make_unique_for_overwrite<float[]>(rows * columns)) {}
  static std::uint64_t bytes(std::size_t rows, std::size_t columns) { return 2 * rows * columns * sizeof(float); }

  std::span<float> scores_of(std::size_t row) const { return {&scores_[row * columns_], columns_}; }
  std::span<float> sums_of(std::size_t row) const { return {&sums_[row * columns_], columns_}; }

 private:
  std::size_t columns_;
  std::unique_ptr<float[]> scores_;
  std::unique_ptr<float[]> sums_;
};

class MaskRule {
 public:
  MaskRule(const AllocationInput& input, const AllocationOptions& options, ThreadPool& pool, CallContext& context,
           cpu::InstructionSet instruction_set)
      : input_(input),
        options_(options),
        pool_(pool),
        context_(context),
        scales_(score_scales(input, options.score)),
        functions_(row_scan_functions(instruction_set)),
        workspaces_(pool.size()) {
    result_.dropped_per_row.resize(input.rows);
    result_.row_sparsities.resize(input.rows);
    result_.mask.resize(input.rows * row_bytes());
  }

  AllocatedRows run() && {
    if (options_.pattern.is_structured()) {
      drop_by_pattern();
    } else if (options_.allocation == Allocation::kGiven) {
      drop_given();
    } else if (options_.allocation == Allocation::kMatrix) {
      drop_lowest_of_matrix();
    } else {
      drop_share_of_scores();
    }
    for (std::size_t row = 0; row < input_.rows; ++row) result_.dropped += static_cast<std::uint64_t>(result_.dropped_per_row[row]);
    return std::move(result_);
  }

 private:
  std::size_t row_bytes() const { return (input_.columns + 7) / 8; }
  RowScores scores(std::size_t row) const {
    return {.weights = input_.weights.data() + row * input_.columns,
            .scales = scales_.empty() ? nullptr : scales_.data(),
            .columns = input_.columns};
  }
  std::uint8_t* bits(std::size_t row) { return &result_.mask[row * row_bytes()]; }

  Workspace& workspace_of(std::size_t worker) {
    if (!workspaces_[worker]) workspaces_[worker] = std::make_unique<Workspace>(input_.columns);
    return *workspaces_[worker];
  }

  // Calls visit(row, keys of its scores, workspace) for all rows, spread over the threads.
  template <class Visit>
  void for_rows(const char* phase, Visit visit) {
    pool_.parallel_for((input_.rows + kTileRows - 1) / kTileRows, [&](std::size_t tile, std::size_t worker) {
      const std::size_t end = std::min(input_.rows, (tile + 1) * kTileRows);
      const PhaseScope scope(context_, phase, 0, static_cast<double>((end - tile * kTileRows) * input_.columns * sizeof(float)));
      Workspace& workspace = workspace_of(worker);
      for (std::size_t row = tile * kTileRows; row < end; ++row) {
        context_.check();
        const std::size_t column = score_row(functions_, scores(row), workspace.keys);
        if (column != input_.columns) {
          throw Error(ErrorCode::kNonFinite,
                      "The weight in row " + std::to_string(row) + ", column " + std::to_string(column) + " is not finite.");
        }
        visit(row, workspace);
      }
    });
  }

  // The mask of the row is set; its sparsity is what that drops.
  void count(std::size_t row) {
    const std::uint8_t* const bytes = bits(row);
    const int dropped =
        std::accumulate(bytes, bytes + row_bytes(), 0, [](int sum, std::uint8_t byte) { return sum + std::popcount(byte); });
    result_.dropped_per_row[row] = dropped;
    result_.row_sparsities[row] = static_cast<float>(dropped) / static_cast<float>(input_.columns);
  }

  void drop_by_pattern() {
    const Pattern pattern = options_.pattern;
    for_rows("mask", [&](std::size_t row, Workspace& workspace) {
      for (std::size_t first = 0; first < input_.columns; first += pattern.group) {
        const std::size_t group = std::min(pattern.group, input_.columns - first);
        const std::size_t dropped = group * pattern.dropped / pattern.group;
        const std::span<std::uint32_t> order = std::span(workspace.order).first(group);
        std::iota(order.begin(), order.end(), static_cast<std::uint32_t>(first));
        std::ranges::sort(order, {}, [&](std::uint32_t column) { return std::pair(workspace.keys[column], column); });
        for (const std::uint32_t column : order.first(dropped)) bits(row)[column / 8] |= static_cast<std::uint8_t>(1U << column % 8);
      }
      count(row);
    });
  }

  void drop_given() {
    RowOrders orders(input_.rows, input_.columns, functions_);
    for_rows("sort", [&](std::size_t row, Workspace& workspace) {
      const float sparsity = input_.row_sparsities[row];
      const std::size_t dropped = dropped_count(input_.columns, sparsity);
      orders.group(row, workspace.keys, workspace.order_scratch);
      orders.mark_before(row, scores(row), dropped, {bits(row), row_bytes()}, workspace.order_scratch);
      result_.row_sparsities[row] = sparsity;
      result_.dropped_per_row[row] = static_cast<std::int32_t>(dropped);
    });
  }

  // All scores up to the one at place floor(weights * target) of their order, and what is equal to it.
  void drop_lowest_of_matrix() {
    const auto weights = static_cast<double>(input_.rows * input_.columns);
    const auto place = static_cast<std::uint64_t>(weights * input_.target_sparsity);
    const std::uint32_t highest = key_at(std::min<std::uint64_t>(place, input_.rows * input_.columns - 1));
    for_rows("mask", [&](std::size_t row, Workspace&) {
      functions_.mark_below(scores(row), highest + 1, 0, bits(row));
      count(row);
    });
  }

  // The key at a place of the order of all scores, found digit by digit from the highest.
  std::uint32_t key_at(std::uint64_t place) {
    constexpr std::uint32_t kDigitBits = 8;
    std::uint32_t prefix = 0;
    for (std::uint32_t shift = 32 - kDigitBits;; shift -= kDigitBits) {
      std::vector<std::array<std::uint64_t, 1U << kDigitBits>> counts(pool_.size());
      count_digits(shift, prefix, kDigitBits, counts);
      for (std::uint32_t digit = 0;; ++digit) {
        std::uint64_t scores_with_digit = 0;
        for (const auto& of_thread : counts) scores_with_digit += of_thread[digit];
        if (place < scores_with_digit) {
          prefix |= digit << shift;
          break;
        }
        place -= scores_with_digit;
      }
      if (shift == 0) return prefix;
    }
  }

  // Counts the digits at `shift` of the keys whose higher digits are those of `prefix`.
  template <class Counts>
  void count_digits(std::uint32_t shift, std::uint32_t prefix, std::uint32_t digit_bits, Counts& counts) {
    const std::uint32_t higher = shift + digit_bits == 32 ? 0 : ~std::uint32_t{0} << (shift + digit_bits);
    pool_.parallel_for((input_.rows + kTileRows - 1) / kTileRows, [&](std::size_t tile, std::size_t worker) {
      context_.check();
      for (std::size_t row = tile * kTileRows; row < std::min(input_.rows, (tile + 1) * kTileRows); ++row) {
        const RowScores row_scores = scores(row);
        for (std::size_t column = 0; column < input_.columns; ++column) {
          const std::uint32_t key = row_scores.key(column);
          if ((key & higher) == prefix) ++counts[worker][key >> shift & ((1U << digit_bits) - 1)];
        }
      }
    });
  }

  // Per row the scores in ascending order as long as their running sum is at most a share of the row's sum; the share is the same in all
  // rows and found by bisection, so that the target is met. Sums are float32 in that order, as published.
  void drop_share_of_scores() {
    RowOrders orders(input_.rows, input_.columns, functions_);
    const SortedScores sorted(input_.rows, input_.columns);
    for_rows("sort", [&](std::size_t row, Workspace& workspace) {
      orders.group(row, workspace.keys, workspace.order_scratch);
      orders.load_upwards(row, scores(row), 0, workspace.order, workspace.order_scratch);
      const std::span<float> sorted_row = sorted.scores_of(row);
      std::ranges::transform(workspace.order, sorted_row.begin(),
                             [&](std::uint32_t column) { return std::bit_cast<float>(workspace.keys[column]); });
      std::partial_sum(sorted_row.begin(), sorted_row.end(), sorted.sums_of(row).begin());
    });
    double share = kFirstShare;
    double lowest = 0;
    double highest = kHighestShare;
    std::uint64_t dropped = count_share(sorted, share);
    const auto sparsity = [&] { return static_cast<double>(dropped) / static_cast<double>(input_.rows * input_.columns); };
    while (std::abs(sparsity() - input_.target_sparsity) > kShareTolerance && highest - lowest >= kShareTolerance) {
      if (sparsity() > input_.target_sparsity) {
        highest = share;
        share = (share + lowest) / 2;
      } else {
        lowest = share;
        share = (share + highest) / 2;
      }
      dropped = count_share(sorted, share);
    }
    for_rows("mask", [&](std::size_t row, Workspace& workspace) {
      const auto before = static_cast<std::size_t>(result_.dropped_per_row[row]);
      orders.mark_before(row, scores(row), before, {bits(row), row_bytes()}, workspace.order_scratch);
      result_.row_sparsities[row] = static_cast<float>(before) / static_cast<float>(input_.columns);
    });
  }

  // Sets dropped_per_row to what a share of the row's sum drops, with all scores equal to the last of them; returns the sum over the rows.
  std::uint64_t count_share(const SortedScores& sorted, double share) {
    const auto count_up_to = [](std::span<const float> ascending, float limit) {
      return std::ranges::upper_bound(ascending, limit) - ascending.begin();
    };
    context_.check();
    for (std::size_t row = 0; row < input_.rows; ++row) {
      const std::span<const float> scores = sorted.scores_of(row);
      const std::span<const float> sums = sorted.sums_of(row);
      const auto count = count_up_to(sums, sums.back() * static_cast<float>(share));
      const auto with_equal = count == 0 ? 0 : count_up_to(scores, scores[static_cast<std::size_t>(count) - 1]);
      result_.dropped_per_row[row] = static_cast<std::int32_t>(with_equal);
    }
    return std::accumulate(result_.dropped_per_row.begin(), result_.dropped_per_row.end(), std::uint64_t{0});
  }

  const AllocationInput& input_;
  const AllocationOptions& options_;
  ThreadPool& pool_;
  CallContext& context_;
  std::vector<float> scales_;
  RowScanFunctions functions_;
  std::vector<std::unique_ptr<Workspace>> workspaces_;
  AllocatedRows result_;
};

}  // namespace

AllocatedRows drop_by_rule(const AllocationInput& input, const AllocationOptions& options, ThreadPool& pool, CallContext& context,
                           cpu::InstructionSet instruction_set) {
  return MaskRule(input, options, pool, context, instruction_set).run();
}

std::uint64_t rule_scratch_bytes(std::size_t rows, std::size_t columns, Allocation allocation, std::size_t threads) {
  const std::uint64_t sorted = allocation == Allocation::kScoreShare ? SortedScores::bytes(rows, columns) : 0;
  return sorted + columns * sizeof(float) + RowOrders::scratch_bytes(rows, columns) + threads * Workspace::bytes(columns);
}

}  // namespace secateur::allocation
