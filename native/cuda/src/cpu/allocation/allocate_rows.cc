#include "allocate_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>

#include "checked_input.h"
#include "cpu/gemm.h"
#include "curves.h"
#include "row_order.h"
#include "search.h"
#include "secateur/error.h"
#include "secateur/thread_pool.h"

namespace secateur::allocation {
namespace {

// Rows of one work item. The matrix products are cut the same way whatever the number of threads, so that their sums are too.
constexpr std::size_t kTileRows = 128;
constexpr std::size_t kSweepTileRows = 8;
constexpr std::size_t kTileColumns = 256;

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
  Workspace(const SweepInputs& inputs, SweepFunction sweep)
      : keys(inputs.columns()), order(inputs.columns()), sorter(inputs.columns()), curve_builder(inputs, sweep) {}

  static std::uint64_t scratch_bytes(std::size_t columns, std::size_t samples) {
    return 2 * columns * sizeof(std::uint32_t) + RowSorter::scratch_bytes(columns) + CurveBuilder::scratch_bytes(columns, samples);
  }

  std::vector<std::uint32_t> keys;
  std::vector<std::uint32_t> order;
  RowSorter sorter;
  CurveBuilder curve_builder;
};

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
        inputs_(input.columns, input.samples),
        orders_(input.rows, input.columns),
        outputs_(input.rows * input.samples),
        sweep_(sweep_function(instruction_set)),
        workspaces_(pool.size()) {}

  AllocatedRows run() && {
    transpose_inputs();
    sort_rows();
    multiply();
    AllocatedRows result = options_.allocation == Allocation::kTrim ? search() : spread_uniformly();
    make_mask(result);
    return result;
  }

 private:
  double columns() const { return static_cast<double>(input_.columns); }
  double samples() const { return static_cast<double>(input_.samples); }
  std::span<const float> weights(std::size_t row) const { return input_.weights.subspan(row * input_.columns, input_.columns); }
  std::span<const float> output(std::size_t row) const { return std::span(outputs_).subspan(row * input_.samples, input_.samples); }

  Workspace& workspace_of(std::size_t worker) {
    std::unique_ptr<Workspace>& workspace = workspaces_[worker];
    if (!workspace) workspace = std::make_unique<Workspace>(inputs_, sweep_);
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

  void transpose_inputs() {
    for_tiles(input_.columns, kTileColumns, [&](std::size_t begin, std::size_t end, std::size_t) {
      const double values = static_cast<double>(end - begin) * samples();
      const PhaseScope phase(context_, "curves", 2 * values, 2 * sizeof(float) * values);
      const std::size_t column = inputs_.fill(input_.last_inputs, begin, end);
      if (column != end) throw Error(ErrorCode::kNonFinite, "Input column " + std::to_string(column) + " has a value that is not finite.");
    });
  }

  void sort_rows() {
    for_tiles(input_.rows, kTileRows, [&](std::size_t begin, std::size_t end, std::size_t worker) {
      Workspace& workspace = workspace_of(worker);
      Stopwatch scoring;
      Stopwatch sorting;
      for (std::size_t row = begin; row < end; ++row) {
        context_.check();
        scoring.start();
        const std::size_t column = score_row(weights(row), scales_, workspace.keys);
        scoring.stop();
        if (column != input_.columns) {
          throw Error(ErrorCode::kNonFinite,
                      "The weight in row " + std::to_string(row) + ", column " + std::to_string(column) + " is not finite.");
        }
        sorting.start();
        workspace.sorter.sort(workspace.keys, workspace.order);
        orders_.store(row, workspace.order);
        sorting.stop();
      }
      const double weights_done = static_cast<double>(end - begin) * columns();
      scoring.record(context_, "scores", weights_done, weights_done * (sizeof(float) + sizeof(std::uint32_t)));
      sorting.record(context_, "sort", 0, weights_done * 2 * sizeof(std::uint32_t));
    });
  }

  // Dense outputs of all rows.
  void multiply() {
    for_tiles(input_.rows, kTileRows, [&](std::size_t begin, std::size_t end, std::size_t) {
      const auto rows = static_cast<double>(end - begin);
      const PhaseScope phase(context_, "gemm", 2 * rows * columns() * samples(),
                             sizeof(float) * (rows * columns() + columns() * samples() + rows * samples()));
      cpu::multiply_transposed(end - begin, input_.samples, input_.columns, 1.0F, weights(begin).data(), input_.columns,
                               input_.last_inputs.data(), input_.columns, &outputs_[begin * input_.samples], input_.samples);
    });
  }

  double dense_squared_norm(std::size_t row) const {
    double sum = 0;
    for (const float value : output(row)) sum += static_cast<double>(value) * static_cast<double>(value);
    if (!std::isfinite(sum)) {
      throw Error(ErrorCode::kNonFinite, "The output of row " + std::to_string(row) + " is too large for float32.");
    }
    return sum;
  }

  // Adds `steps` weights to a side of a row of `curves`.
  void sweep_row(std::size_t row, CurveSide side, std::size_t steps, QualityCurves& curves, std::size_t curve, Workspace& workspace) {
    context_.check();
    SweepProgress& progress = curves.progress(curve, side);
    const std::span<std::uint32_t> order = std::span(workspace.order).first(steps);
    if (side == CurveSide::kDropped) {
      orders_.load_from_low(row, progress.steps, order);
    } else {
      orders_.load_from_high(row, progress.steps, order);
    }
    workspace.curve_builder.set_row(weights(row), output(row), curves.dense_squared_norm(curve));
    workspace.curve_builder.sweep(side, order, progress, curves.sum(curve, side), curves.points(curve));
  }

  void record_sweeps(const Stopwatch& sweeping, double steps) {
    sweeping.record(context_, "curves", steps * (6 * samples() + 10),
                    steps * (static_cast<double>(inputs_.stride() * sizeof(float)) + sizeof(CurvePoint)));
  }

  // Sweeps the rows whose counts are not swept yet, and some way beyond, for the search goes on in small moves.
  void ensure_swept(QualityCurves& curves, std::span<const std::size_t> counts) {
    const std::size_t margin = input_.columns / 16 + 1;
    std::vector<std::size_t> rows;
    for (std::size_t row = 0; row < input_.rows; ++row) {
      if (!curves.is_swept(row, counts[row])) rows.push_back(row);
    }
    for_tiles(rows.size(), kSweepTileRows, [&](std::size_t begin, std::size_t end, std::size_t worker) {
      Stopwatch sweeping;
      double swept = 0;
      sweeping.start();
      for (const std::size_t row : std::span(rows).subspan(begin, end - begin)) {
        const CurveSide side = side_of(counts[row], input_.columns);
        const std::size_t wanted = steps_to(side, counts[row], input_.columns) + margin;
        const std::size_t steps = std::min(wanted, all_steps(side, input_.columns)) - curves.progress(row, side).steps;
        sweep_row(row, side, steps, curves, row, workspace_of(worker));
        swept += static_cast<double>(steps);
      }
      sweeping.stop();
      record_sweeps(sweeping, swept);
    });
  }

  AllocatedRows search() {
    QualityCurves curves(input_.rows, inputs_);
    for (std::size_t row = 0; row < input_.rows; ++row) curves.start_row(row, dense_squared_norm(row));
    const auto look_up = [&](std::span<const std::size_t> counts, std::span<OutputProducts> products) {
      ensure_swept(curves, counts);
      for (std::size_t row = 0; row < input_.rows; ++row) products[row] = curves.at(row, counts[row]);
    };
    return search_rows(input_.rows, input_.columns, look_up, target_, options_, context_);
  }

  AllocatedRows spread_uniformly() {
    const std::size_t count = dropped_count(input_.columns, target_);
    const CurveSide side = side_of(count, input_.columns);
    std::vector<OutputProducts> products(input_.rows);
    for_tiles(input_.rows, kSweepTileRows, [&](std::size_t begin, std::size_t end, std::size_t worker) {
      QualityCurves curve(1, inputs_);
      const std::size_t steps = steps_to(side, count, input_.columns);
      Stopwatch sweeping;
      sweeping.start();
      for (std::size_t row = begin; row < end; ++row) {
        curve.restart_row(0, dense_squared_norm(row));
        sweep_row(row, side, steps, curve, 0, workspace_of(worker));
        products[row] = curve.at(0, count);
      }
      sweeping.stop();
      record_sweeps(sweeping, static_cast<double>((end - begin) * steps));
    });

    OutputProducts layer;
    std::vector<double> row_qualities(input_.rows);
    for (std::size_t row = 0; row < input_.rows; ++row) {
      layer.add(products[row]);
      row_qualities[row] = cosine(products[row]);
    }
    AllocatedRows result;
    result.baseline_quality = result.best_quality = cosine(layer);
    result.variance_before = result.variance_after = variance(row_qualities);
    result.row_sparsities.assign(input_.rows, target_);
    result.steps.push_back({.learning_rate = 0, .step = 0, .quality = result.baseline_quality});
    return result;
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
    for_tiles(input_.rows, kTileRows, [&](std::size_t begin, std::size_t end, std::size_t) {
      const double row_traffic = static_cast<double>(row_bytes + input_.columns * sizeof(std::uint16_t));
      const PhaseScope phase(context_, "mask", 0, static_cast<double>(end - begin) * row_traffic);
      for (std::size_t row = begin; row < end; ++row) {
        orders_.mark_first(row, static_cast<std::size_t>(result.dropped_per_row[row]), {&result.mask[row * row_bytes], row_bytes});
      }
    });
  }

  const AllocationInput& input_;
  const AllocationOptions& options_;
  ThreadPool& pool_;
  CallContext& context_;
  float target_;
  std::vector<float> scales_;
  SweepInputs inputs_;
  RowOrders orders_;
  // [rows, samples]: dense outputs.
  std::vector<float> outputs_;
  SweepFunction sweep_;
  // One per thread that ever got a tile.
  std::vector<std::unique_ptr<Workspace>> workspaces_;
};

std::uint64_t scratch_bytes(std::size_t rows, std::size_t columns, std::size_t samples, Allocation rule, std::size_t threads) {
  // Sparsities and qualities of the uniform, the current and the best candidate; moves; counts; products; rows to sweep.
  constexpr std::uint64_t kSearchBytesPerRow =
      3 * (sizeof(float) + sizeof(double)) + sizeof(double) + 2 * sizeof(std::size_t) + sizeof(OutputProducts);
  const std::uint64_t of_rule = rule == Allocation::kTrim ? QualityCurves::scratch_bytes(rows, columns, samples) + rows * kSearchBytesPerRow
                                                          : rows * (sizeof(OutputProducts) + sizeof(double)) +
                                                                threads * QualityCurves::scratch_bytes(1, columns, samples);
  return of_rule + columns * sizeof(float) + rows * samples * sizeof(float) + SweepInputs::scratch_bytes(columns, samples) +
         RowOrders::scratch_bytes(rows, columns) + threads * Workspace::scratch_bytes(columns, samples);
}

}  // namespace

AllocatedRows allocate_rows(const AllocationInput& input, const AllocationOptions& options, ThreadPool& pool, CallContext& context,
                            cpu::InstructionSet instruction_set) {
  require_valid(input, options);
  require_size(input.weights.size(), input.rows * input.columns, "weights");
  return RowAllocator(input, options, pool, context, instruction_set).run();
}

}  // namespace secateur::allocation

namespace secateur {

std::uint64_t allocation_scratch_bytes(std::size_t rows, std::size_t columns, std::size_t samples, Allocation rule, std::size_t threads) {
  return allocation::scratch_bytes(rows, columns, samples, rule, threads);
}

AllocatedRows allocate_rows(const AllocationInput& input, const AllocationOptions& options, ThreadPool& pool, CallContext& context) {
  return allocation::allocate_rows(input, options, pool, context, cpu::selected_instruction_set());
}

}  // namespace secateur
