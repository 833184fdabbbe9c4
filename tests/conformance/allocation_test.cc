// Every way to allocate the rows of a projection, against the CPU backend's own code.
#include "secateur/allocation.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "backend_under_test.h"
#include "reference_block.h"
#include "secateur/backend.h"
#include "secateur/thread_pool.h"

using namespace secateur;

namespace {

// No size is a multiple of a tile.
const Architecture kArchitecture = {
    40, 70, 2, 1, 20, 20, 64, Normalization::kRms, 1e-6, PositionEncoding::kRotary, 10000.0, 0, FeedForward::kGatedSilu};
constexpr TensorRole kProjection = TensorRole::kUpWeight;
constexpr std::size_t kRows = 70;
constexpr std::size_t kColumns = 40;
constexpr std::size_t kSamples = 5;

struct Method {
  std::string name;
  AllocationOptions options;
  // Computed with sums in another order on a device; everything else is the same bits everywhere.
  bool rounds_differently = false;
};

const Method kMethods[] = {
    {"TRIM", {}, true},
    {"TRIM by magnitudes", {.score = Score::kMagnitude}, true},
    {"the same share in every row", {.allocation = Allocation::kUniform}, true},
    {"given row sparsities", {.allocation = Allocation::kGiven}, true},
    {"the lowest of the matrix", {.allocation = Allocation::kMatrix}, true},
    {"the lowest magnitudes of the matrix", {.score = Score::kMagnitude, .allocation = Allocation::kMatrix}, true},
    {"the variant of Wanda", {.allocation = Allocation::kScoreShare}},
    {"the optimal split", {.allocation = Allocation::kOptimal}, true},
    {"2:4", {.allocation = Allocation::kUniform, .pattern = {2, 4}}, true},
    {"3:7, by magnitudes", {.score = Score::kMagnitude, .allocation = Allocation::kUniform, .pattern = {3, 7}}, true},
    {"cosines of dimensions", {.layer_quality = LayerQuality::kCosimDim}, true},
    {"cosines of samples", {.layer_quality = LayerQuality::kCosimSample}},
    {"mean squared errors", {.layer_quality = LayerQuality::kMse}, true},
    {"mean squared errors of dimensions", {.layer_quality = LayerQuality::kMseDim}, true},
    {"absolute errors", {.layer_quality = LayerQuality::kMae}},
    {"signal-to-noise ratio", {.layer_quality = LayerQuality::kSnr}, true},
    {"decibels", {.layer_quality = LayerQuality::kPsnrFlat}, true},
    {"decibels of dimensions", {.layer_quality = LayerQuality::kPsnrDim}, true},
    {"decibels of samples", {.layer_quality = LayerQuality::kPsnrSample}},
    {"rows by squared errors", {.row_quality = RowQuality::kMse}, true},
    {"rows by decibels", {.layer_quality = LayerQuality::kPsnrDim, .row_quality = RowQuality::kPsnr}, true},
    {"no step better than another", {.layer_quality = LayerQuality::kPass, .row_quality = RowQuality::kPsnr}, true},
};

struct Statistics {
  Statistics() : mean_squares(kColumns), quality_inputs(kSamples * kColumns), row_sparsities(kRows) {
    for (std::size_t i = 0; i < kColumns; ++i) mean_squares[i] = i % 11 == 0 ? 0.0F : static_cast<float>(1 + i % 5);
    for (std::size_t i = 0; i < quality_inputs.size(); ++i) quality_inputs[i] = std::sin(static_cast<float>(i) * 0.7F);
    for (std::size_t row = 0; row < kRows; ++row) row_sparsities[row] = 0.3F + 0.5F * static_cast<float>(row) / kRows;
  }

  AllocationInput input_for(const AllocationOptions& options) const {
    AllocationInput input;
    input.samples = kSamples;
    input.mean_squares = mean_squares;
    input.quality_inputs = quality_inputs;
    input.target_sparsity = 0.6;
    if (options.allocation == Allocation::kGiven) input.row_sparsities = row_sparsities;
    return input;
  }

  std::vector<float> mean_squares;
  std::vector<float> quality_inputs;
  std::vector<float> row_sparsities;
};

// Curves are float32 and sums of outputs float32 products in another order: qualities and errors agree to a few times 1e-7 of theirs,
// decibels to a few times 1e-7 / ln(10) * 10.
bool is_near(double actual, double expected) { return std::abs(actual - expected) < 1e-6 * std::max(1.0, std::abs(expected)); }

void check_same(const AllocatedRows& actual, const AllocatedRows& expected, bool rounds_differently) {
  CHECK(actual.mask == expected.mask);
  CHECK(actual.dropped_per_row == expected.dropped_per_row);
  CHECK(actual.dropped == expected.dropped);
  CHECK(actual.learning_rate == expected.learning_rate);
  CHECK(actual.best_step == expected.best_step);
  REQUIRE(actual.steps.size() == expected.steps.size());
  if (rounds_differently) {
    CHECK(is_near(actual.best_quality, expected.best_quality));
    CHECK(is_near(actual.baseline_quality, expected.baseline_quality));
    CHECK(std::abs(actual.variance_after - expected.variance_after) < 1e-6);
    return;
  }
  CHECK(actual.best_quality == expected.best_quality);
  CHECK(actual.baseline_quality == expected.baseline_quality);
  CHECK(actual.variance_after == expected.variance_after);
  CHECK(actual.row_sparsities == expected.row_sparsities);
}

struct Values {
  explicit Values(const std::map<TensorRole, std::vector<float>>& block) : tensors(block), views(test::views_of(tensors, kArchitecture)) {}

  std::map<TensorRole, std::vector<float>> tensors;
  std::vector<TensorView> views;
};

}  // namespace

TEST_CASE("every way to allocate drops what the CPU backend drops, of a block's weights and of weights given directly") {
  const Values block(test::random_block(kArchitecture, false, 8));
  const Statistics statistics;
  const std::unique_ptr<Backend> backend = test::open_backend(2, 1U << 28);
  const std::unique_ptr<BackendSession> session = backend->open_session(kArchitecture, Compute::kF32);
  CallContext context;
  session->load_shard("block", block.views, context);
  ThreadPool pool(1);
  for (const Method& method : kMethods) {
    CAPTURE(method.name);
    AllocationInput input = statistics.input_for(method.options);
    const AllocatedRows of_block = session->allocate_rows("block", kProjection, input, method.options, context);
    input.rows = kRows;
    input.columns = kColumns;
    input.weights = block.tensors.at(kProjection);
    const AllocatedRows expected = allocate_rows(input, method.options, pool, context);
    const bool rounds_differently = method.rounds_differently && !test::is_cpu();
    check_same(of_block, expected, rounds_differently);
    check_same(backend->allocate_matrix(input, method.options, context), expected, rounds_differently);
  }
}

TEST_CASE("matrices of any size are allocated as by the CPU backend") {
  struct Size {
    std::size_t rows;
    std::size_t columns;
    std::size_t samples;
  };
  const std::unique_ptr<Backend> backend = test::open_backend(2, 1U << 30);
  CallContext context;
  ThreadPool pool(1);
  for (const Size size : {Size{1, 1, 1}, Size{2, 7, 1}, Size{3, 33, 2}, Size{5, 257, 33}, Size{3, 1025, 129}, Size{4, 300, 1025},
                          Size{9, 4097, 8}, Size{3, 18944, 3}, Size{2, 18945, 3}}) {
    if (test::is_emulated() && size.rows * size.columns * size.samples > 10'000) continue;
    CAPTURE(size.columns);
    CAPTURE(size.samples);
    std::mt19937 generator(static_cast<unsigned>(size.columns));
    std::normal_distribution<float> normal;
    const auto draw = [&](std::size_t count) {
      std::vector<float> values(count);
      for (float& value : values) value = normal(generator);
      return values;
    };
    const std::vector<float> weights = draw(size.rows * size.columns);
    const std::vector<float> quality_inputs = draw(size.samples * size.columns);
    std::vector<float> mean_squares = draw(size.columns);
    for (float& value : mean_squares) value *= value;
    AllocationInput input;
    input.rows = size.rows;
    input.columns = size.columns;
    input.samples = size.samples;
    input.weights = weights;
    input.mean_squares = mean_squares;
    input.quality_inputs = quality_inputs;
    input.target_sparsity = 0.6;
    const AllocationOptions ways[] = {{},
                                      {.allocation = Allocation::kUniform},
                                      {.allocation = Allocation::kMatrix},
                                      {.layer_quality = LayerQuality::kPsnrDim, .row_quality = RowQuality::kMse}};
    for (const AllocationOptions& options : ways) {
      const AllocatedRows expected = allocate_rows(input, options, pool, context);
      const AllocatedRows actual = backend->allocate_matrix(input, options, context);
      CHECK(actual.dropped == expected.dropped);
      CHECK(is_near(actual.best_quality, expected.best_quality));
      // Of equal counts the order of the scores decides, which has no rounding.
      if (actual.dropped_per_row == expected.dropped_per_row) CHECK(actual.mask == expected.mask);
      if (options.allocation != Allocation::kTrim) CHECK(actual.dropped_per_row == expected.dropped_per_row);
    }
  }
}

namespace {

// The value that is left, and its bits, when those that the type has no place for are cut off.
std::pair<float, std::uint16_t> as_stored(ElementType type, float value) {
  const auto bits = __builtin_bit_cast(std::uint32_t, value);
  if (type == ElementType::kBF16) return {__builtin_bit_cast(float, bits & 0xffff0000U), static_cast<std::uint16_t>(bits >> 16)};
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  // Smaller ones have fewer places.
  if (magnitude < 0x38800000U) return {0.0F, std::uint16_t{0}};
  return {__builtin_bit_cast(float, bits & 0xffffe000U),
          static_cast<std::uint16_t>((bits >> 16 & 0x8000U) | (magnitude - 0x38000000U) >> 13)};
}

void check_stored_values(Compute compute, ElementType type) {
  if (const std::string reason = test::why_no(compute); !reason.empty()) {
    MESSAGE("skipped: " << reason);
    return;
  }
  Values block(test::random_block(kArchitecture, false, 8));
  std::map<TensorRole, std::vector<std::uint16_t>> narrow;
  for (TensorView& view : block.views) {
    std::vector<std::uint16_t>& bits = narrow[view.role];
    for (float& value : block.tensors.at(view.role)) {
      std::uint16_t stored = 0;
      std::tie(value, stored) = as_stored(type, value);
      bits.push_back(stored);
    }
    view.element_type = type;
    view.bytes = {reinterpret_cast<const std::uint8_t*>(bits.data()), bits.size() * sizeof(std::uint16_t)};
  }
  const std::unique_ptr<Backend> backend = test::open_backend(1, 1U << 28);
  const std::unique_ptr<BackendSession> session = backend->open_session(kArchitecture, compute);
  CallContext context;
  session->load_shard("block", block.views, context);
  const Statistics statistics;
  ThreadPool pool(1);
  for (const Allocation rule : {Allocation::kMatrix, Allocation::kScoreShare}) {
    const AllocationOptions options{.allocation = rule};
    AllocationInput input = statistics.input_for(options);
    const AllocatedRows actual = session->allocate_rows("block", kProjection, input, options, context);
    input.rows = kRows;
    input.columns = kColumns;
    input.weights = block.tensors.at(kProjection);
    check_same(actual, allocate_rows(input, options, pool, context), rule == Allocation::kMatrix && !test::is_cpu());
  }
}

}  // namespace

TEST_CASE("weights of which only bfloat16 or float16 is kept are allocated by the values that are stored") {
  SUBCASE("bfloat16") { check_stored_values(Compute::kBF16, ElementType::kBF16); }
  SUBCASE("float16") { check_stored_values(Compute::kF16, ElementType::kF16); }
}

TEST_CASE("a cancelled allocation stops, and what it cannot be made of is named") {
  const Values block(test::random_block(kArchitecture, false, 8));
  const Statistics statistics;
  const std::unique_ptr<Backend> backend = test::open_backend(1, 1U << 28);
  const std::unique_ptr<BackendSession> session = backend->open_session(kArchitecture, Compute::kF32);
  std::atomic<bool> cancelled = false;
  CallContext context(&cancelled);
  session->load_shard("block", block.views, context);
  const auto code_of = [&](const AllocationInput& input, const AllocationOptions& options) {
    try {
      session->allocate_rows("block", kProjection, input, options, context);
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::kInternal;
  };
  const AllocationOptions pattern{.allocation = Allocation::kUniform, .pattern = {2, 4}};
  AllocationInput input = statistics.input_for(pattern);
  CHECK(code_of(input, {.allocation = Allocation::kGiven}) == ErrorCode::kInvalidArgument);
  CHECK(code_of(input, {.allocation = Allocation::kOptimal, .layer_quality = LayerQuality::kMse}) == ErrorCode::kInvalidArgument);
  std::vector<float> infinite = statistics.mean_squares;
  infinite[3] = INFINITY;
  input.mean_squares = infinite;
  CHECK(code_of(input, pattern) == ErrorCode::kNonFinite);
  input.mean_squares = statistics.mean_squares;
  cancelled = true;
  CHECK(code_of(input, pattern) == ErrorCode::kCancelled);
}
