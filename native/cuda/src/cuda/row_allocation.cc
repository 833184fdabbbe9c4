#include "cuda/row_allocation.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cpu/allocation/checked_input.h"
#include "cpu/allocation/choose_split.h"
#include "cpu/allocation/host_runs.h"
#include "cpu/allocation/metrics.h"
#include "cpu/allocation/optimal_split.h"
#include "cpu/allocation/search.h"
#include "cpu/allocation/search_arithmetic.h"
#include "cpu/vector_math.h"
#include "cuda/device_rules.h"
#include "cuda/device_runs.h"
#include "cuda/host_work.h"
#include "cuda/kernels/elementwise.h"
#include "cuda/kernels/mask.h"
#include "cuda/kernels/matrix_product_f32.h"
#include "cuda/kernels/quality_curves.h"
#include "cuda/kernels/row_order.h"
#include "cuda/read_curves.h"
#include "cuda/transfers.h"

namespace secateur::gpu {

namespace {

// Of the scratch memory for sorting some rows at a time.
constexpr std::size_t kScratchBytes = std::size_t{256} << 20;

// Throws NonFinite naming the first weight that is NaN or infinite.
void require_finite_weights(const AllocationInput& input, const float* weights, SessionMemory& memory, const Stream& stream) {
  DeviceBuffer<unsigned> flag(memory, 1, "a flag");
  check(cudaMemsetAsync(flag.data(), 0, sizeof(unsigned), stream.get()), "clearing a flag");
  check(flag_non_finite(weights, input.rows * input.columns, flag.data(), stream.get()), "looking for NaN");
  PinnedBuffer<unsigned> found(memory, 1, "a flag");
  download(flag.data(), {found.data(), found.size()}, stream, "reading a flag");
  stream.synchronize("Looking for weights that are not finite");
  if (*found.data() == 0) return;
  std::vector<float> values(input.rows * input.columns);
  download(weights, values, stream, "reading weights");
  stream.synchronize("Reading weights");
  const auto bad = std::ranges::find_if(values, [](float value) { return !std::isfinite(value); });
  const auto place = static_cast<std::size_t>(bad - values.begin());
  throw Error(ErrorCode::kNonFinite, "The weight in row " + std::to_string(place / input.columns) + ", column " +
                                         std::to_string(place % input.columns) + " is not finite.");
}

void require_finite_inputs(const AllocationInput& input) {
  if (cpu::vector_math().all_finite(input.quality_inputs.data(), input.quality_inputs.size())) return;
  const auto bad = std::ranges::find_if(input.quality_inputs, [](float value) { return !std::isfinite(value); });
  const auto column = static_cast<std::size_t>(bad - input.quality_inputs.begin()) % input.columns;
  throw Error(ErrorCode::kNonFinite, "Input column " + std::to_string(column) + " has a value that is not finite.");
}

// [columns, samples], from [samples, columns].
std::vector<float> transpose_inputs(const AllocationInput& input) {
  std::vector<float> inputs(input.columns * input.samples);
  cpu::vector_math().transpose(input.quality_inputs.data(), input.samples, input.columns, input.columns, inputs.data(), input.samples);
  return inputs;
}

// What is known of all rows once they are swept: the order of their weights and their quality curves, on the device.
struct SweptRows {
  DeviceBuffer<std::uint32_t> orders;
  DeviceBuffer<CurvePoint> points;
  DeviceBuffer<double> dense_squared_norms;
  // On the host, [rows, samples]; nothing where the device searches.
  std::vector<float> dense_outputs;
};

// Waits for the device.
std::vector<double> read_norms(const DeviceBuffer<double>& norms, const Stream& stream) {
  std::vector<double> read(norms.size());
  download(norms.data(), read, stream, "reading norms of dense outputs");
  stream.synchronize("Reading norms of dense outputs");
  return read;
}

// Of the scratch memory for sweeping one row.
std::size_t sweep_bytes_per_row(std::size_t columns, std::size_t samples) {
  const bool panels = samples > kCurvePanelSamples;
  return columns * 3 * sizeof(std::uint32_t) + samples * sizeof(float) + (panels ? (columns + 1) * sizeof(CurveSums) : 0);
}

// Rows swept at a time.
std::size_t sweep_step(std::size_t rows, std::size_t columns, std::size_t samples) {
  return std::clamp<std::size_t>(kScratchBytes / sweep_bytes_per_row(columns, samples), 1, rows);
}

SweptRows sweep_rows(const AllocationInput& input, const float* weights, const AllocationOptions& options, SessionMemory& memory,
                     const Stream& stream, Timeline& timeline, CallContext& context) {
  const std::size_t rows = input.rows;
  const std::size_t columns = input.columns;
  const std::vector<float> scales = allocation::score_scales(input, options.score);
  const std::vector<float> inputs = transpose_inputs(input);
  context.check();

  SweptRows swept{.orders = {memory, rows * columns, "the order of the weights"},
                  .points = {memory, rows * (columns + 1), "quality curves"},
                  .dense_squared_norms = {memory, rows, "norms of dense outputs"},
                  .dense_outputs = std::vector<float>(searches_on_host(options) ? rows * input.samples : 0)};
  DeviceBuffer<float> device_scales(memory, scales.size(), "scores");
  DeviceBuffer<float> device_inputs(memory, inputs.size(), "inputs of the last tokens");
  DeviceBuffer<float> device_last(memory, inputs.size(), "inputs of the last tokens");
  upload(scales, device_scales.data(), stream, "uploading an allocation's input");
  upload(inputs, device_inputs.data(), stream, "uploading an allocation's input");
  upload(input.quality_inputs, device_last.data(), stream, "uploading an allocation's input");

  const bool panels = input.samples > kCurvePanelSamples;
  const std::size_t step = sweep_step(rows, columns, input.samples);
  DeviceBuffer<std::uint32_t> keys(memory, step * columns, "scratch of an allocation");
  DeviceBuffer<std::uint32_t> other_keys(memory, step * columns, "scratch of an allocation");
  DeviceBuffer<std::uint32_t> other_orders(memory, step * columns, "scratch of an allocation");
  DeviceBuffer<float> outputs(memory, step * input.samples, "dense outputs");
  DeviceBuffer<CurveSums> sums(memory, panels ? step * (columns + 1) : 0, "scratch of an allocation");
  for (std::size_t first = 0; first < rows; first += step) {
    context.check();
    const std::size_t count = std::min(step, rows - first);
    const float* const part = weights + first * columns;
    std::uint32_t* const orders = swept.orders.data() + first * columns;
    const auto values = static_cast<double>(count * columns);
    timeline.begin("sort", 0, 4 * 16 * values);
    check(order_rows({count, columns, part, scales.empty() ? nullptr : device_scales.data(), keys.data(), other_keys.data(),
                      other_orders.data(), orders},
                     stream.get()),
          "ordering rows");
    timeline.begin("gemm", 2 * values * static_cast<double>(input.samples), 4 * values);
    check(matrix_product_f32({count, input.samples, columns, part, device_last.data(), nullptr, outputs.data()}, stream.get()),
          "dense outputs");
    timeline.begin("curves", 6 * values * static_cast<double>(input.samples), 4 * values * static_cast<double>(input.samples));
    check(quality_curves({count, columns, input.samples, part, orders, device_inputs.data(), outputs.data(), sums.data(),
                          swept.points.data() + first * (columns + 1), swept.dense_squared_norms.data() + first},
                         stream.get()),
          "quality curves");
    if (searches_on_host(options)) {
      const std::span read = std::span(swept.dense_outputs).subspan(first * input.samples, count * input.samples);
      download(outputs.data(), read, stream, "reading dense outputs");
    }
    timeline.finish(context, "Sweeping quality curves");
  }
  const std::vector<double> norms = read_norms(swept.dense_squared_norms, stream);
  const auto bad = std::ranges::find_if(norms, [](double norm) { return !std::isfinite(norm); });
  if (bad != norms.end()) {
    throw Error(ErrorCode::kNonFinite, "The output of row " + std::to_string(bad - norms.begin()) + " is too large for float32.");
  }
  return swept;
}

// Waits for the device. The budget is that of the curves on the host, and outlives them.
ReadCurves read_curves(const SweptRows& rows, std::size_t columns, MemoryBudget& budget, const Stream& stream) {
  Buffer<CurvePoint> points(budget, rows.points.size(), "quality curves on the host");
  download(rows.points.data(), points.span(), stream, "reading quality curves");
  // Waits for the points too.
  std::vector<double> norms = read_norms(rows.dense_squared_norms, stream);
  return {columns, std::move(points), std::move(norms)};
}

// The host splits by curves that are all there.
AllocatedRows split_rows(const SweptRows& rows, const AllocationInput& input, ThreadPool& pool, const Stream& stream,
                         CallContext& context) {
  MemoryBudget uncounted(UINT64_MAX);
  const ReadCurves curves = read_curves(rows, input.columns, uncounted, stream);
  const allocation::SplitRows split{input.rows, input.columns, input.samples, allocation::target_of(input)};
  return on_all_threads(pool, context, [&](CallContext& part) {
    allocation::OptimalSplit optimal(split.rows, split.highest_count(), curves, pool, part);
    std::vector<std::size_t> all(split.rows);
    std::iota(all.begin(), all.end(), std::size_t{0});
    optimal.update(all);
    optimal.split(split.rows * split.uniform_count());
    return allocation::choose_split(split, optimal.counts(), curves,
                                    [&](std::size_t row, std::size_t count) { return curves.output_at(row, count); });
  });
}

// So does it measure by other metrics than the default ones.
AllocatedRows search_on_host(const SweptRows& rows, const AllocationInput& input, const AllocationOptions& options, const Stream& stream,
                             CallContext& context) {
  MemoryBudget uncounted(UINT64_MAX);
  const ReadCurves curves = read_curves(rows, input.columns, uncounted, stream);
  std::vector<double> peak_squares(input.rows);
  for (std::size_t row = 0; row < input.rows; ++row) {
    peak_squares[row] = allocation::peak_square(std::span(rows.dense_outputs).subspan(row * input.samples, input.samples));
  }
  const allocation::CompareOutputs compare = [&](std::span<const std::size_t> counts, allocation::OutputComparison& outputs) {
    for (std::size_t row = 0; row < input.rows; ++row) outputs.rows[row] = curves.output_at(row, counts[row], peak_squares[row]);
  };
  const float target = allocation::target_of(input);
  const allocation::Metrics metrics{.layer = options.layer_quality, .row = options.row_quality};
  allocation::HostRuns runs(input.rows, input.columns, input.samples, compare, metrics, target, context);
  return allocation::search_rows(runs, target, options);
}

AllocatedRows choose_sparsities(const SweptRows& rows, const AllocationInput& input, const AllocationOptions& options,
                                SessionMemory& memory, ThreadPool& pool, const Stream& stream, Timeline& timeline, CallContext& context) {
  if (options.allocation == Allocation::kOptimal) return split_rows(rows, input, pool, stream, context);
  if (searches_on_host(options)) return search_on_host(rows, input, options, stream, context);
  const float target = allocation::target_of(input);
  DeviceRuns runs({input.rows, input.columns, rows.points.data(), rows.dense_squared_norms.data()}, target, memory, stream, timeline,
                  context);
  return options.allocation == Allocation::kTrim ? allocation::search_rows(runs, target, options)
                                                 : allocation::keep_uniform(runs.measure_uniform());
}

}  // namespace

std::uint64_t allocation_bytes(std::size_t rows, std::size_t columns, std::size_t samples, const AllocationOptions& options) {
  if (!runs_on_device(options)) return 0;
  if (is_device_rule(options)) return rule_bytes(rows, columns, samples);
  const std::size_t step = sweep_step(rows, columns, samples);
  const std::uint64_t swept =
      block_bytes<std::uint32_t>(rows * columns) + block_bytes<CurvePoint>(rows * (columns + 1)) + block_bytes<double>(rows);
  const std::uint64_t sweep = block_bytes<float>(columns) + 2 * block_bytes<float>(columns * samples) +
                              3 * block_bytes<std::uint32_t>(step * columns) + block_bytes<float>(step * samples) +
                              (samples > kCurvePanelSamples ? block_bytes<CurveSums>(step * (columns + 1)) : 0);
  const std::uint64_t mask = block_bytes<std::int32_t>(rows) + block_bytes<std::uint8_t>(rows * ((columns + 7) / 8));
  return swept + std::max({sweep, DeviceRuns::bytes(rows), mask});
}

AllocatedRows allocate_rows(const AllocationInput& input, const float* weights, const AllocationOptions& options, SessionMemory& memory,
                            ThreadPool& pool, const Stream& stream, Timeline& timeline, CallContext& context) {
  allocation::require_valid(input, options);
  if (!runs_on_device(options)) return allocate_on_host(input, weights, options, pool, stream, context);
  require_finite_inputs(input);
  require_finite_weights(input, weights, memory, stream);
  if (is_device_rule(options)) return drop_by_rule(input, weights, options, memory, stream, timeline, context);
  const std::size_t rows = input.rows;
  const std::size_t columns = input.columns;
  const SweptRows swept = sweep_rows(input, weights, options, memory, stream, timeline, context);

  AllocatedRows result = choose_sparsities(swept, input, options, memory, pool, stream, timeline, context);
  result.dropped_per_row.resize(rows);
  for (std::size_t row = 0; row < rows; ++row) {
    const std::size_t count = allocation::dropped_count(columns, result.row_sparsities[row]);
    result.dropped_per_row[row] = static_cast<std::int32_t>(count);
    result.dropped += count;
  }
  DeviceBuffer<std::int32_t> counts(memory, rows, "counts of dropped weights");
  result.mask.resize(rows * ((columns + 7) / 8));
  DeviceBuffer<std::uint8_t> mask(memory, result.mask.size(), "a mask");
  upload(result.dropped_per_row, counts.data(), stream, "uploading an allocation's input");
  timeline.begin("mask", 0, 4 * static_cast<double>(rows * columns));
  check(pack_mask(swept.orders.data(), counts.data(), rows, columns, mask.data(), stream.get()), "packing a mask");
  download(mask.data(), result.mask, stream, "reading a mask");
  timeline.finish(context, "Packing a mask");
  return result;
}

}  // namespace secateur::gpu
