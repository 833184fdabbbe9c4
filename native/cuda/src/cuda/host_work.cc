#include "cuda/host_work.h"

#include <cstdint>

#include "cpu/allocation/host_runs.h"
#include "cpu/allocation/metrics.h"
#include "cpu/allocation/optimal_split.h"
#include "cpu/projection.h"
#include "cpu/spectrum.h"
#include "cuda/cuda_error.h"
#include "cuda/read_curves.h"
#include "cuda/transfers.h"
#include "secateur/memory_budget.h"

namespace secateur::gpu {

namespace {

// Waits for the device. Memory of the host is not counted: the budget is the device's.
Buffer<float> read_weights(std::size_t rows, std::size_t columns, const float* weights, MemoryBudget& budget, const Stream& stream,
                           CallContext& context) {
  context.check();
  const auto bytes = static_cast<double>(rows * columns * sizeof(float));
  const PhaseScope scope(context, "convert", 0, bytes);
  Buffer<float> read(budget, rows * columns, "weights on the host");
  download(weights, read.span(), stream, "reading weights");
  stream.synchronize("Reading weights");
  return read;
}

}  // namespace

bool runs_on_device(const AllocationOptions& options) {
  const allocation::Metrics metrics{.layer = options.layer_quality, .row = options.row_quality};
  return options.allocation != Allocation::kScoreShare && !metrics.need_outputs();
}

bool searches_on_host(const AllocationOptions& options) {
  return options.layer_quality != LayerQuality::kCosimFlat || options.row_quality != RowQuality::kCosim;
}

AllocatedRows allocate_on_host(AllocationInput input, const float* weights, const AllocationOptions& options, ThreadPool& pool,
                               const Stream& stream, CallContext& context) {
  MemoryBudget uncounted(UINT64_MAX);
  const Buffer<float> read = read_weights(input.rows, input.columns, weights, uncounted, stream, context);
  input.weights = read.span();
  return allocate_on_host(input, options, pool, context);
}

AllocatedRows allocate_on_host(const AllocationInput& input, const AllocationOptions& options, ThreadPool& pool, CallContext& context) {
  return on_all_threads(pool, context, [&](CallContext& part) { return secateur::allocate_rows(input, options, pool, part); });
}

std::vector<double> eigenvalues_on_host(std::size_t rows, std::size_t columns, const float* weights, ThreadPool& pool, const Stream& stream,
                                        CallContext& context) {
  MemoryBudget uncounted(UINT64_MAX);
  const cpu::Matrix matrix{rows, columns, read_weights(rows, columns, weights, uncounted, stream, context)};
  return on_all_threads(pool, context, [&](CallContext& part) { return cpu::squared_singular_values(matrix, uncounted, pool, part); });
}

std::uint64_t host_allocation_bytes(std::size_t rows, std::size_t columns, std::size_t samples, const AllocationOptions& options,
                                    std::size_t threads) {
  if (!runs_on_device(options)) {
    return rows * columns * sizeof(float) +
           allocation_scratch_bytes(rows, columns, samples, options.allocation, options.layer_quality, options.row_quality, threads);
  }
  if (options.allocation == Allocation::kOptimal) {
    return ReadCurves::bytes(rows, columns) + allocation::OptimalSplit::scratch_bytes(rows, columns, threads);
  }
  if (!searches_on_host(options)) return 0;
  const std::uint64_t dense_outputs = rows * samples * sizeof(float);
  const std::uint64_t peak_squares = rows * sizeof(double);
  return dense_outputs + peak_squares + ReadCurves::bytes(rows, columns) + allocation::HostRuns::scratch_bytes(rows, samples);
}

std::uint64_t host_eigenvalues_bytes(std::size_t rows, std::size_t columns, std::size_t threads) {
  return rows * columns * sizeof(float) + cpu::spectrum_scratch_bytes(rows, columns, threads);
}

}  // namespace secateur::gpu
