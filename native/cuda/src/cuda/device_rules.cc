#include "cuda/device_rules.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <vector>

#include "cpu/allocation/checked_input.h"
#include "cpu/allocation/masked_quality.h"
#include "cpu/allocation/search_arithmetic.h"
#include "cuda/cuda_error.h"
#include "cuda/kernels/lowest_scores.h"
#include "cuda/kernels/mask.h"
#include "cuda/kernels/mask_rules.h"
#include "cuda/kernels/matrix_product_f32.h"
#include "cuda/kernels/row_order.h"
#include "cuda/lowest_scores_memory.h"
#include "cuda/transfers.h"

namespace secateur::gpu {

namespace {

using allocation::OutputProducts;

// Of the scratch memory for some rows at a time.
constexpr std::size_t kScratchBytes = std::size_t{256} << 20;

std::size_t row_bytes_of(std::size_t columns) { return (columns + 7) / 8; }

// Rows that are worked on at a time: their order and its scratch, a masked copy and two outputs.
std::size_t rows_at_once(std::size_t rows, std::size_t columns, std::size_t samples) {
  const std::size_t of_row = columns * (4 * sizeof(std::uint32_t) + sizeof(float)) + 2 * samples * sizeof(float);
  return std::clamp<std::size_t>(kScratchBytes / of_row, 1, rows);
}

// Marks what some rows lose.
class Marker {
 public:
  Marker(const AllocationInput& input, const float* weights, const AllocationOptions& options, std::size_t step, SessionMemory& memory,
         const Stream& stream)
      : input_(input),
        weights_(weights),
        pattern_(options.pattern),
        of_matrix_(options.allocation == Allocation::kMatrix),
        stream_(stream) {
    const std::vector<float> scales = allocation::score_scales(input, options.score);
    scales_ = {memory, scales.size(), "scores"};
    upload(scales, scales_.data(), stream, "uploading an allocation's input");
    if (pattern_.is_structured()) return;
    if (of_matrix_) {
      lowest_ = {memory, input.rows};
      check(find_lowest(scores(0, input.rows), count_of_matrix(), EqualScores::kAll, lowest_.from(), stream.get()), "the lowest scores");
      return;
    }
    for (DeviceBuffer<std::uint32_t>* const buffer : {&keys_, &other_keys_, &other_orders_, &orders_}) {
      *buffer = {memory, step * input.columns, "the order of the weights"};
    }
    std::vector<std::int32_t> counts;
    for (const float sparsity : input.row_sparsities) {
      counts.push_back(static_cast<std::int32_t>(allocation::dropped_count(input.columns, sparsity)));
    }
    counts_ = {memory, counts.size(), "counts of dropped weights"};
    upload(counts, counts_.data(), stream, "uploading an allocation's input");
  }

  void mark(std::size_t first, std::size_t count, std::uint8_t* mask) {
    const std::size_t columns = input_.columns;
    const ScoredWeights part = scores(first, count);
    if (pattern_.is_structured()) {
      check(mark_pattern({count, columns, pattern_.dropped, pattern_.group, part.weights, part.scales, mask}, stream_.get()),
            "marking a pattern");
      return;
    }
    if (of_matrix_) {
      check(mark_lowest(part, lowest_.from(first), mask, stream_.get()), "marking the lowest scores");
      return;
    }
    check(order_rows({count, columns, part.weights, part.scales, keys_.data(), other_keys_.data(), other_orders_.data(), orders_.data()},
                     stream_.get()),
          "ordering rows");
    check(pack_mask(orders_.data(), counts_.data() + first, count, columns, mask, stream_.get()), "packing a mask");
  }

 private:
  ScoredWeights scores(std::size_t first, std::size_t count) const {
    return {count, input_.columns, weights_ + first * input_.columns, scales_.empty() ? nullptr : scales_.data()};
  }
  // Up to the score at place floor(weights · target) of their order, counted from 0.
  std::uint64_t count_of_matrix() const {
    const std::uint64_t weights = input_.rows * input_.columns;
    return std::min(weights, static_cast<std::uint64_t>(static_cast<double>(weights) * input_.target_sparsity) + 1);
  }

  const AllocationInput& input_;
  const float* weights_;
  Pattern pattern_;
  bool of_matrix_;
  const Stream& stream_;
  DeviceBuffer<float> scales_;
  DeviceBuffer<std::uint32_t> keys_;
  DeviceBuffer<std::uint32_t> other_keys_;
  DeviceBuffer<std::uint32_t> other_orders_;
  DeviceBuffer<std::uint32_t> orders_;
  DeviceBuffer<std::int32_t> counts_;
  LowestScoresMemory lowest_;
};

void count_dropped(const AllocationInput& input, AllocatedRows& result) {
  const std::size_t row_bytes = row_bytes_of(input.columns);
  for (std::size_t row = 0; row < input.rows; ++row) {
    const auto bytes = std::span(result.mask).subspan(row * row_bytes, row_bytes);
    const int dropped =
        std::accumulate(bytes.begin(), bytes.end(), 0, [](int sum, std::uint8_t byte) { return sum + std::popcount(byte); });
    result.dropped_per_row.push_back(dropped);
    result.row_sparsities.push_back(input.row_sparsities.empty() ? static_cast<float>(dropped) / static_cast<float>(input.columns)
                                                                 : input.row_sparsities[row]);
    result.dropped += static_cast<std::uint64_t>(dropped);
  }
}

}  // namespace

bool is_device_rule(const AllocationOptions& options) {
  return options.pattern.is_structured() || options.allocation == Allocation::kGiven || options.allocation == Allocation::kMatrix;
}

std::uint64_t rule_bytes(std::size_t rows, std::size_t columns, std::size_t samples) {
  const std::size_t step = rows_at_once(rows, columns, samples);
  return block_bytes<std::uint8_t>(rows * row_bytes_of(columns)) + block_bytes<OutputProducts>(rows) +
         block_bytes<float>(columns * samples) + block_bytes<float>(columns) + 4 * block_bytes<std::uint32_t>(step * columns) +
         block_bytes<std::int32_t>(rows) + LowestScoresMemory::bytes(rows) + block_bytes<float>(step * columns) +
         2 * block_bytes<float>(step * samples);
}

AllocatedRows drop_by_rule(const AllocationInput& input, const float* weights, const AllocationOptions& options, SessionMemory& memory,
                           const Stream& stream, Timeline& timeline, CallContext& context) {
  const std::size_t rows = input.rows;
  const std::size_t columns = input.columns;
  const std::size_t samples = input.samples;
  const std::size_t row_bytes = row_bytes_of(columns);
  const std::size_t step = rows_at_once(rows, columns, samples);
  DeviceBuffer<std::uint8_t> mask(memory, rows * row_bytes, "a mask");
  DeviceBuffer<OutputProducts> products(memory, rows, "products of outputs");
  DeviceBuffer<float> inputs(memory, columns * samples, "inputs of the last tokens");
  DeviceBuffer<float> masked(memory, step * columns, "a masked copy");
  DeviceBuffer<float> dense_outputs(memory, step * samples, "dense outputs");
  DeviceBuffer<float> outputs(memory, step * samples, "masked outputs");
  Marker marker(input, weights, options, step, memory, stream);
  upload(input.quality_inputs, inputs.data(), stream, "uploading an allocation's input");
  for (std::size_t first = 0; first < rows; first += step) {
    context.check();
    const std::size_t count = std::min(step, rows - first);
    const auto values = static_cast<double>(count * columns);
    const float* const part = weights + first * columns;
    std::uint8_t* const part_mask = mask.data() + first * row_bytes;
    timeline.begin("mask", 0, 4 * values);
    marker.mark(first, count, part_mask);
    check(cudaMemcpyAsync(masked.data(), part, count * columns * sizeof(float), cudaMemcpyDeviceToDevice, stream.get()), "copying weights");
    check(apply_mask(masked.data(), part_mask, count, columns, stream.get()), "applying a mask");
    timeline.begin("gemm", 4 * values * static_cast<double>(samples), 8 * values);
    check(matrix_product_f32({count, samples, columns, part, inputs.data(), nullptr, dense_outputs.data()}, stream.get()), "dense outputs");
    check(matrix_product_f32({count, samples, columns, masked.data(), inputs.data(), nullptr, outputs.data()}, stream.get()),
          "masked outputs");
    check(compare_outputs(dense_outputs.data(), outputs.data(), count, samples, products.data() + first, stream.get()),
          "comparing outputs");
    timeline.finish(context, "Dropping by rule");
  }
  AllocatedRows result;
  result.mask.resize(mask.size());
  std::vector<OutputProducts> of_rows(rows);
  download(mask.data(), result.mask, stream, "reading a mask");
  download(products.data(), of_rows, stream, "reading products of outputs");
  stream.synchronize("Reading a mask");
  count_dropped(input, result);
  allocation::judge_mask(of_rows, result);
  return result;
}

}  // namespace secateur::gpu
