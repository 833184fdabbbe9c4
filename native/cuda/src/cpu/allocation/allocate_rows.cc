#include "allocate_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <utility>

#include "checked_input.h"
#include "choose_split.h"
#include "cpu/gemm.h"
#include "curves.h"
#include "host_runs.h"
#include "mask_rules.h"
#include "masked_quality.h"
#include "optimal_split.h"
#include "pruned_outputs.h"
#include "row_order.h"
#include "search.h"
#include "search_arithmetic.h"
#include "secateur/error.h"
#include "secateur/thread_pool.h"

namespace secateur::allocation {
namespace {

// Rows of one work item. The matrix products are cut the same way whatever the number of threads, so that their sums are too.
constexpr std::size_t kTileRows = 128;
// Rows of a work item that sweeps: many, that they share the inputs in the cache, but enough items for all threads.
constexpr std::size_t kMostSweepRows = 64;
constexpr std::size_t kFewestSweepRows = 8;
constexpr std::size_t kTileColumns = 256;
constexpr std::size_t kTileSamples = 16;

std::size_t tiles(std::size_t items, std::size_t tile) { return (items + tile - 1) / tile; }
std::size_t mask_row_bytes(std::size_t columns) { return (columns + 7) / 8; }

// Times the parts of one phase that alternate with another, to record them as one.
class Stopwatch {
 public:
  void start() { started_ = CallContext::Clock::now(); }
  void stop() { busy_ += CallContext::Clock::now() - started_; }
  // As if the whole phase had ended at its last stop.
  void record(CallContext& context, const char* phase, double flops, double bytes) const {
    const auto end = CallContext::Clock::now();
    context.record(phase, end - busy_, end, flops, bytes);
  }

 private:
  CallContext::Clock::time_point started_;
  CallContext::Clock::duration busy_{};
};

// What one thread needs for one row.
struct Workspace {
  Workspace(const SweepInputs& inputs, SweepFunctions sweep_functions)
      : keys(inputs.columns()), order_scratch(inputs.columns()), batch(inputs, sweep_functions) {}

  static std::uint64_t scratch_bytes(std::size_t columns, std::size_t samples, SweepPrecision precision) {
    return columns * sizeof(std::uint32_t) + RowOrders::Scratch::bytes(columns) + SweepBatch::scratch_bytes(columns, samples, precision);
  }

  std::vector<std::uint32_t> keys;
  RowOrders::Scratch order_scratch;
  SweepBatch batch;
};

// Errors as far as rows are swept.
class SweptErrors final : public ErrorCurves {
 public:
  // Keeps the reference.
  SweptErrors(const QualityCurves& curves, std::size_t rows) : curves_(curves), first_known_(rows) {}

  // When the row was swept farther.
  void update(std::size_t row) { first_known_[row] = curves_.swept_down_to(row); }

  std::size_t first_known(std::size_t row) const override { return first_known_[row]; }
  double at(std::size_t row, std::size_t count) const override { return count < first_known_[row] ? 0 : curves_.squared_error(row, count); }
  void load(std::size_t row, std::size_t first, std::span<double> errors) const override {
    for (std::size_t i = 0; i < errors.size(); ++i) errors[i] = curves_.squared_error(row, first + i);
  }

 private:
  const QualityCurves& curves_;
  // [rows]
  std::vector<std::size_t> first_known_;
};

// Where rows are compared by their outputs, and not by quality curves, these are exact.
SweepPrecision precision_of(const Metrics& metrics, std::size_t samples) {
  return metrics.need_outputs() ? SweepPrecision::kFloat64 : SweepInputs::precision_of(samples);
}

class RowAllocator {
 public:
  RowAllocator(const AllocationInput& input, const AllocationOptions& options, ThreadPool& pool, CallContext& context,
               cpu::InstructionSet instruction_set)
      : input_(input),
        options_(options),
        pool_(pool),
        context_(context),
        target_(target_of(input)),
        scales_(score_scales(input, options.score)),
        scan_functions_(row_scan_functions(instruction_set)),
        sweep_functions_(sweep_functions(instruction_set)),
        metrics_{.layer = options.layer_quality, .row = options.row_quality},
        inputs_(input.columns, input.samples, precision_of(metrics_, input.samples), sweep_functions_),
        paths_(options.allocation == Allocation::kOptimal
                   ? SweepPaths::from_all_dropped(input.columns)
                   : SweepPaths(input.columns, metrics_.need_errors() ? 0 : dropped_count(input.columns, target_))),
        orders_(input.rows, input.columns, scan_functions_),
        outputs_(metrics_.need_outputs() ? 0 : input.rows * inputs_.stride()),
        workspaces_(pool.size()) {}

  AllocatedRows run() && {
    transpose_inputs();
    AllocatedRows result = allocate();
    make_mask(result);
    return result;
  }

 private:
  double rows() const { return static_cast<double>(input_.rows); }
  double columns() const { return static_cast<double>(input_.columns); }
  double samples() const { return static_cast<double>(input_.samples); }
  std::span<const float> weights(std::size_t row) const { return input_.weights.subspan(row * input_.columns, input_.columns); }
  float* output(std::size_t row) { return outputs_.data() + row * inputs_.stride(); }
  RowScores scores(std::size_t row) const {
    return {.weights = weights(row).data(), .scales = scales_.empty() ? nullptr : scales_.data(), .columns = input_.columns};
  }

  AllocatedRows allocate() {
    if (metrics_.need_outputs()) return search_by_outputs();
    multiply();
    switch (options_.allocation) {
      case Allocation::kTrim:
        return search_by_curves();
      case Allocation::kOptimal:
        return split();
      default:
        return spread_uniformly();
    }
  }

  AllocatedRows search(const CompareOutputs& compare) {
    HostRuns runs(input_.rows, input_.columns, input_.samples, compare, metrics_, target_, context_);
    return search_rows(runs, target_, options_);
  }

  Workspace& workspace_of(std::size_t worker) {
    std::unique_ptr<Workspace>& workspace = workspaces_[worker];
    if (!workspace) workspace = std::make_unique<Workspace>(inputs_, sweep_functions_);
    return *workspace;
  }

  // Calls visit(begin, end, worker) for tiles of `items`, spread over the threads.
  template <class Visit>
  void for_tiles(std::size_t items, std::size_t tile_items, Visit visit) {
    pool_.parallel_for(tiles(items, tile_items), [&](std::size_t tile, std::size_t worker) {
      context_.check();
      const std::size_t begin = tile * tile_items;
      visit(begin, std::min(begin + tile_items, items), worker);
    });
  }

  std::size_t sweep_rows(std::size_t rows) const { return std::clamp(rows / (4 * pool_.size()), kFewestSweepRows, kMostSweepRows); }

  void transpose_inputs() {
    for_tiles(input_.columns, kTileColumns, [&](std::size_t begin, std::size_t end, std::size_t) {
      const double values = static_cast<double>(end - begin) * samples();
      const PhaseScope phase(context_, "curves", 2 * values, 2 * sizeof(float) * values);
      const std::size_t column = inputs_.fill(input_.quality_inputs, begin, end);
      if (column != end) throw Error(ErrorCode::kNonFinite, "Input column " + std::to_string(column) + " has a value that is not finite.");
    });
  }

  // Dense outputs of all rows.
  void multiply() {
    for_tiles(input_.rows, kTileRows, [&](std::size_t begin, std::size_t end, std::size_t) {
      const auto rows = static_cast<double>(end - begin);
      const PhaseScope phase(context_, "gemm", 2 * rows * columns() * samples(),
                             sizeof(float) * (rows * columns() + columns() * samples() + rows * samples()));
      cpu::multiply_transposed(end - begin, input_.samples, input_.columns, 1.0F, weights(begin).data(), input_.columns,
                               input_.quality_inputs.data(), input_.columns, output(begin), inputs_.stride());
      for (std::size_t row = begin; row < end; ++row) std::fill(output(row) + input_.samples, output(row) + inputs_.stride(), 0.0F);
    });
  }

  // Scores the rows of a tile and counts their scores.
  void sort_rows(std::size_t begin, std::size_t end, Workspace& workspace) {
    Stopwatch scoring;
    Stopwatch sorting;
    for (std::size_t row = begin; row < end; ++row) {
      context_.check();
      scoring.start();
      const std::size_t column = score_row(scan_functions_, scores(row), workspace.keys);
      scoring.stop();
      if (column != input_.columns) {
        throw Error(ErrorCode::kNonFinite,
                    "The weight in row " + std::to_string(row) + ", column " + std::to_string(column) + " is not finite.");
      }
      sorting.start();
      orders_.group(row, workspace.keys, workspace.order_scratch);
      sorting.stop();
    }
    const double weights_done = static_cast<double>(end - begin) * columns();
    scoring.record(context_, "scores", weights_done, weights_done * (sizeof(float) + sizeof(std::uint32_t)));
    sorting.record(context_, "sort", 0, weights_done * 2 * sizeof(std::uint32_t));
  }

  // Adds to the batch the sum of the start's side of the row where all rows start.
  void add_start(std::size_t row, std::size_t summed, Workspace& workspace) {
    context_.check();
    const std::size_t start = paths_.start();
    const std::span<std::uint32_t> columns = workspace.batch.next_columns(summed);
    if (paths_.start_side() == CurveSide::kDropped) {
      orders_.load_before(row, scores(row), start, columns, workspace.order_scratch);
    } else {
      orders_.load_from(row, scores(row), start, columns, workspace.order_scratch);
    }
    workspace.batch.add_up(summed, weights(row), output(row));
  }

  // Orders and starts all rows; visit(row, sum of the start's side, its products).
  template <class Visit>
  void start_rows(Visit visit) {
    const std::size_t summed = paths_.start_side() == CurveSide::kDropped ? paths_.start() : input_.columns - paths_.start();
    for_tiles(input_.rows, sweep_rows(input_.rows), [&](std::size_t begin, std::size_t end, std::size_t worker) {
      Workspace& workspace = workspace_of(worker);
      sort_rows(begin, end, workspace);
      const double steps = static_cast<double>((end - begin) * summed);
      const PhaseScope phase(context_, "curves", steps * 2 * samples(), steps * static_cast<double>(inputs_.stride() * sizeof(float)));
      SweepBatch& batch = workspace.batch;
      for (std::size_t first = begin; first < end;) {
        std::size_t last = first;
        while (last < end && batch.has_room(summed)) add_start(last++, summed, workspace);
        batch.run();
        for (std::size_t row = first; row < last; ++row) {
          const SumProducts products = batch.products(row - first);
          if (!std::isfinite(products.dense_squared_norm)) {
            throw Error(ErrorCode::kNonFinite, "The output of row " + std::to_string(row) + " is too large for float32.");
          }
          visit(row, batch[row - first].sum, products);
        }
        batch.clear();
        first = last;
      }
    });
  }

  // Adds to the batch the way from where a path of a row is swept to.
  void add_sweep(std::size_t row, std::size_t path_index, std::size_t steps, QualityCurves& curves, Workspace& workspace) {
    context_.check();
    const SweepPath& path = paths_[path_index];
    const std::size_t swept = curves.progress(row, path_index).steps;
    const std::span<std::uint32_t> order = workspace.batch.next_columns(steps);
    if (path.upwards()) {
      orders_.load_upwards(row, scores(row), path.first + swept, order, workspace.order_scratch);
    } else {
      orders_.load_downwards(row, scores(row), path.first - swept, order, workspace.order_scratch);
    }
    curves.add_sweep(row, path_index, steps, weights(row), output(row), workspace.batch);
  }

  void record_sweeps(const Stopwatch& sweeping, double steps) {
    sweeping.record(context_, "curves", steps * (6 * samples() + 10),
                    steps * (static_cast<double>(inputs_.stride() * sizeof(float)) + sizeof(CurvePoint)));
  }

  // Steps that the path to the row's count is swept further: up to it and some way beyond, for the search goes on in small moves.
  std::size_t steps_towards(std::size_t count, std::size_t row, std::size_t path, const QualityCurves& curves) const {
    const std::size_t margin = input_.columns / 16 + 1;
    return std::min(paths_[path].steps_to(count) + margin, paths_[path].steps()) - curves.progress(row, path).steps;
  }

  // Sweeps the rows whose counts are not swept yet.
  void ensure_swept(QualityCurves& curves, std::span<const std::size_t> counts) {
    std::vector<std::size_t> rows;
    for (std::size_t row = 0; row < input_.rows; ++row) {
      if (!curves.is_swept(row, counts[row])) rows.push_back(row);
    }
    for_tiles(rows.size(), sweep_rows(rows.size()), [&](std::size_t begin, std::size_t end, std::size_t worker) {
      Stopwatch sweeping;
      double swept = 0;
      sweeping.start();
      Workspace& workspace = workspace_of(worker);
      SweepBatch& batch = workspace.batch;
      for (std::size_t first = begin; first < end;) {
        std::size_t last = first;
        for (; last < end; ++last) {
          const std::size_t row = rows[last];
          const std::size_t path = paths_.path_to(counts[row]);
          const std::size_t steps = steps_towards(counts[row], row, path, curves);
          if (!batch.has_room(steps)) break;
          add_sweep(row, path, steps, curves, workspace);
          swept += static_cast<double>(steps);
        }
        batch.run();
        for (std::size_t i = first; i < last; ++i) curves.take_sweep(rows[i], paths_.path_to(counts[rows[i]]), batch[i - first]);
        batch.clear();
        first = last;
      }
      sweeping.stop();
      record_sweeps(sweeping, swept);
    });
  }

  AllocatedRows search_by_curves() {
    QualityCurves curves(input_.rows, inputs_, paths_, metrics_.need_errors());
    std::vector<double> peak_squares(input_.rows);
    start_rows([&](std::size_t row, const void* sum, const SumProducts& products) {
      curves.start_row(row, sum, products);
      if (metrics_.need_errors()) peak_squares[row] = peak_square({output(row), input_.samples});
    });
    return search([&](std::span<const std::size_t> counts, OutputComparison& outputs) {
      ensure_swept(curves, counts);
      for (std::size_t row = 0; row < input_.rows; ++row) outputs.rows[row] = curves.at(row, counts[row], peak_squares[row]);
    });
  }

  // Orders all rows and adds up their dense outputs.
  void start_outputs(PrunedOutputs& outputs) {
    for_tiles(input_.rows, sweep_rows(input_.rows), [&](std::size_t begin, std::size_t end, std::size_t worker) {
      Workspace& workspace = workspace_of(worker);
      sort_rows(begin, end, workspace);
      const double products = static_cast<double>(end - begin) * columns() * samples();
      const PhaseScope phase(context_, "gemm", 2 * products, sizeof(float) * products);
      SweepBatch& batch = workspace.batch;
      for (std::size_t first = begin; first < end;) {
        std::size_t last = first;
        for (; last < end && batch.has_room(input_.columns); ++last) outputs.add_dense(last, weights(last), batch);
        batch.run();
        batch.clear();
        for (; first < last; ++first) {
          if (outputs.fits_float32(first)) continue;
          throw Error(ErrorCode::kNonFinite, "The output of row " + std::to_string(first) + " is too large for float32.");
        }
      }
    });
  }

  // The columns at the places from one count to another, in no particular order.
  void load_between(std::size_t row, std::size_t from, std::size_t to, std::span<std::uint32_t> columns, Workspace& workspace) const {
    if (from == 0) {
      orders_.load_before(row, scores(row), to, columns, workspace.order_scratch);
    } else if (from == input_.columns) {
      orders_.load_from(row, scores(row), to, columns, workspace.order_scratch);
    } else {
      orders_.load_upwards(row, scores(row), std::min(from, to), columns, workspace.order_scratch);
    }
  }

  void move_outputs(PrunedOutputs& outputs, std::span<const std::size_t> counts) {
    std::vector<std::size_t> rows;
    for (std::size_t row = 0; row < input_.rows; ++row) {
      if (outputs.count(row) != counts[row]) rows.push_back(row);
    }
    for_tiles(rows.size(), sweep_rows(rows.size()), [&](std::size_t begin, std::size_t end, std::size_t worker) {
      Stopwatch moving;
      double moved = 0;
      moving.start();
      Workspace& workspace = workspace_of(worker);
      SweepBatch& batch = workspace.batch;
      while (begin < end) {
        for (; begin < end; ++begin) {
          context_.check();
          const std::size_t row = rows[begin];
          const std::size_t from = outputs.begin_move(row, counts[row]);
          const std::size_t steps = std::max(from, counts[row]) - std::min(from, counts[row]);
          if (!batch.has_room(steps)) break;
          load_between(row, from, counts[row], batch.next_columns(steps), workspace);
          outputs.add_move(row, counts[row], weights(row), batch);
          moved += static_cast<double>(steps);
        }
        batch.run();
        batch.clear();
      }
      moving.stop();
      moving.record(context_, "curves", 2 * moved * samples(), sizeof(float) * moved * samples());
    });
  }

  AllocatedRows search_by_outputs() {
    PrunedOutputs outputs(input_.rows, inputs_);
    start_outputs(outputs);
    return search([&](std::span<const std::size_t> counts, OutputComparison& comparison) {
      move_outputs(outputs, counts);
      const auto record = [&](std::size_t rows, std::size_t its_samples) {
        const auto values = static_cast<double>(rows * its_samples);
        return PhaseScope(context_, "search", 10 * values, 2 * sizeof(double) * values);
      };
      for_tiles(input_.rows, kTileRows, [&](std::size_t begin, std::size_t end, std::size_t) {
        const PhaseScope phase = record(end - begin, input_.samples);
        outputs.compare_rows(begin, end, comparison);
      });
      for_tiles(input_.samples, kTileSamples, [&](std::size_t begin, std::size_t end, std::size_t) {
        const PhaseScope phase = record(input_.rows, end - begin);
        outputs.compare_samples(begin, end, comparison);
      });
    });
  }

  // Sweeps rows from all weights dropped down to counts: on the first side, then on the other.
  void sweep_down(QualityCurves& curves, std::span<const std::size_t> counts) {
    std::vector<std::size_t> farthest(input_.rows);
    for (const std::size_t end : {last_dropped_count(input_.columns) + 1, std::size_t{1}}) {
      std::ranges::transform(counts, farthest.begin(), [&](std::size_t count) { return std::max(count, end); });
      ensure_swept(curves, farthest);
    }
  }

  // Rows are swept down from where all is dropped, no farther than it takes to know the best split.
  AllocatedRows split() {
    QualityCurves curves(input_.rows, inputs_, paths_, false);
    start_rows([&](std::size_t row, const void* sum, const SumProducts& products) { curves.start_row(row, sum, products); });
    const SplitRows rows_to_split{input_.rows, input_.columns, input_.samples, target_};
    const std::size_t uniform_count = rows_to_split.uniform_count();
    SweptErrors errors(curves, input_.rows);
    OptimalSplit optimal(input_.rows, rows_to_split.highest_count(), errors, pool_, context_);

    std::vector<std::size_t> lowest(input_.rows, uniform_count * 3 / 4);
    std::vector<std::size_t> swept(input_.rows);
    std::iota(swept.begin(), swept.end(), std::size_t{0});
    while (!swept.empty()) {
      sweep_down(curves, lowest);
      for (const std::size_t row : swept) errors.update(row);
      optimal.update(swept);
      swept.clear();
      for (const OptimalSplit::Unknown& unknown : optimal.split(input_.rows * uniform_count)) {
        swept.push_back(unknown.row);
        lowest[unknown.row] = unknown.lowest;
      }
    }
    const PhaseScope phase(context_, "search", 60 * rows(), 2 * rows() * sizeof(OutputSums));
    return choose_split(rows_to_split, optimal.counts(), errors,
                        [&](std::size_t row, std::size_t count) { return curves.at(row, count, 0); });
  }

  AllocatedRows spread_uniformly() {
    OutputComparison outputs(input_.rows, input_.samples);
    start_rows([&](std::size_t row, const void*, const SumProducts& start) {
      const auto [steps, a, b] = progress_at(start);
      const double dense_squared_norm = start.dense_squared_norm;
      outputs.rows[row].products = products_at(point_at(paths_.start_side(), a, b, dense_squared_norm), dense_squared_norm);
    });

    Candidate uniform{.sparsities = std::vector<float>(input_.rows, target_), .row_qualities = {}};
    measure(uniform, outputs, metrics_);
    measure_variance(uniform, outputs, metrics_);
    return keep_uniform(std::move(uniform));
  }

  void make_mask(AllocatedRows& result) {
    result.dropped_per_row.resize(input_.rows);
    for (std::size_t row = 0; row < input_.rows; ++row) {
      const std::size_t count = dropped_count(input_.columns, result.row_sparsities[row]);
      result.dropped_per_row[row] = static_cast<std::int32_t>(count);
      result.dropped += count;
    }
    const std::size_t row_bytes = mask_row_bytes(input_.columns);
    result.mask.resize(input_.rows * row_bytes);
    for_tiles(input_.rows, kTileRows, [&](std::size_t begin, std::size_t end, std::size_t worker) {
      const double row_traffic = static_cast<double>(row_bytes + 2 * input_.columns * sizeof(float));
      const PhaseScope phase(context_, "mask", 0, static_cast<double>(end - begin) * row_traffic);
      for (std::size_t row = begin; row < end; ++row) {
        const auto count = static_cast<std::size_t>(result.dropped_per_row[row]);
        orders_.mark_before(row, scores(row), count, {&result.mask[row * row_bytes], row_bytes}, workspace_of(worker).order_scratch);
      }
    });
  }

  const AllocationInput& input_;
  const AllocationOptions& options_;
  ThreadPool& pool_;
  CallContext& context_;
  float target_;
  std::vector<float> scales_;
  RowScanFunctions scan_functions_;
  SweepFunctions sweep_functions_;
  // Others than the default ones only with a search.
  Metrics metrics_;
  SweepInputs inputs_;
  // Where errors are needed sweeps only add up, from both ends: taking away would leave nothing of a small error, which decibels show.
  SweepPaths paths_;
  RowOrders orders_;
  // [rows, inputs_.stride()]: dense outputs; nothing where a search keeps them itself.
  AlignedArray<float> outputs_;
  // One per thread that ever got a tile.
  std::vector<std::unique_ptr<Workspace>> workspaces_;
};

// What holds the outputs, or what is known of them, and the search or the split.
std::uint64_t search_bytes(std::size_t rows, std::size_t columns, std::size_t samples, Allocation rule, const Metrics& metrics,
                           std::size_t threads) {
  const std::uint64_t dense_outputs = AlignedArray<float>::bytes(rows * SweepInputs::stride_of(samples));
  if (rule == Allocation::kOptimal) {
    // The uniform and the best candidate; counts and how far rows are swept; rows to sweep.
    constexpr std::uint64_t kSplitBytes = 2 * (sizeof(float) + sizeof(double)) + 6 * sizeof(std::size_t);
    return dense_outputs + QualityCurves::scratch_bytes(rows, columns, samples, false) + OutputComparison::bytes(rows, samples) +
           rows * kSplitBytes + OptimalSplit::scratch_bytes(rows, columns, threads);
  }
  if (rule != Allocation::kTrim) return dense_outputs + OutputComparison::bytes(rows, samples) + rows * sizeof(double);
  // Beside the runs' own: counts that move.
  const std::uint64_t runs = HostRuns::scratch_bytes(rows, samples) + rows * sizeof(std::size_t);
  if (metrics.need_outputs()) return runs + PrunedOutputs::scratch_bytes(rows, columns, samples);
  const std::uint64_t peak_squares = rows * sizeof(double);
  return runs + dense_outputs + peak_squares + QualityCurves::scratch_bytes(rows, columns, samples, metrics.need_errors());
}

std::uint64_t scratch_bytes(std::size_t rows, std::size_t columns, std::size_t samples, Allocation rule, const Metrics& metrics,
                            std::size_t threads) {
  const std::uint64_t by_rule =
      std::max(rule_scratch_bytes(rows, columns, rule, threads), masked_quality_bytes(rows, columns, samples, threads));
  if (is_rule(rule)) return by_rule;
  const std::uint64_t by_counts = search_bytes(rows, columns, samples, rule, metrics, threads) + columns * sizeof(float) +
                                  SweepInputs::scratch_bytes(columns, samples) + RowOrders::scratch_bytes(rows, columns) +
                                  threads * Workspace::scratch_bytes(columns, samples, precision_of(metrics, samples));
  // Uniform rows may have a pattern, which drops by rule.
  return rule == Allocation::kUniform ? std::max(by_counts, by_rule) : by_counts;
}

}  // namespace

AllocatedRows allocate_rows(const AllocationInput& input, const AllocationOptions& options, ThreadPool& pool, CallContext& context,
                            cpu::InstructionSet instruction_set) {
  require_valid(input, options);
  require_size(input.weights.size(), input.rows * input.columns, "weights");
  if (!decides_by_rule(options)) return RowAllocator(input, options, pool, context, instruction_set).run();
  AllocatedRows result = drop_by_rule(input, options, pool, context, instruction_set);
  measure_mask(input, pool, context, result);
  return result;
}

}  // namespace secateur::allocation

namespace secateur {

std::uint64_t allocation_scratch_bytes(std::size_t rows, std::size_t columns, std::size_t samples, Allocation rule,
                                       LayerQuality layer_quality, RowQuality row_quality, std::size_t threads) {
  return allocation::scratch_bytes(rows, columns, samples, rule, {.layer = layer_quality, .row = row_quality}, threads);
}

AllocatedRows allocate_rows(const AllocationInput& input, const AllocationOptions& options, ThreadPool& pool, CallContext& context) {
  return allocation::allocate_rows(input, options, pool, context, cpu::selected_instruction_set());
}

}  // namespace secateur
