// What splits a model's sparsity over its blocks, against plain float64.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend_under_test.h"
#include "reference_block.h"
#include "secateur/backend.h"

using namespace secateur;

namespace {

// Weights with more rows than columns, fewer and as many, none of whose sizes is a multiple of a tile.
const Architecture kArchitecture = {
    150, 210, 5, 1, 30, 20, 64, Normalization::kRms, 1e-6, PositionEncoding::kRotary, 10000.0, 0, FeedForward::kGatedSilu};
constexpr TensorRole kProjections[] = {TensorRole::kQueryWeight,  TensorRole::kKeyWeight,  TensorRole::kValueWeight,
                                       TensorRole::kOutputWeight, TensorRole::kGateWeight, TensorRole::kUpWeight,
                                       TensorRole::kDownWeight};

using Tensors = std::map<TensorRole, std::vector<float>>;

std::unique_ptr<BackendSession> open_with(Backend& backend, const Tensors& tensors) {
  std::unique_ptr<BackendSession> session = backend.open_session(kArchitecture, Compute::kF32);
  CallContext context;
  session->load_shard("block", test::views_of(tensors, kArchitecture), context);
  return session;
}

// By Jacobi's rotations, ascending.
std::vector<double> reference_eigenvalues(const std::vector<float>& weight, std::size_t rows, std::size_t columns) {
  const bool by_rows = rows <= columns;
  const std::size_t size = std::min(rows, columns);
  const auto at = [&](std::size_t vector, std::size_t term) -> double {
    return by_rows ? weight[vector * columns + term] : weight[term * columns + vector];
  };
  std::vector<double> a(size * size);
  for (std::size_t i = 0; i < size; ++i) {
    for (std::size_t j = 0; j < size; ++j) {
      for (std::size_t term = 0; term < std::max(rows, columns); ++term) a[i * size + j] += at(i, term) * at(j, term);
    }
  }
  for (int sweep = 0; sweep < 12; ++sweep) {
    for (std::size_t p = 0; p < size; ++p) {
      for (std::size_t q = p + 1; q < size; ++q) {
        if (a[p * size + q] == 0) continue;
        const double theta = (a[q * size + q] - a[p * size + p]) / (2 * a[p * size + q]);
        const double t = std::copysign(1.0, theta) / (std::abs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1);
        const double s = t * c;
        for (std::size_t k = 0; k < size; ++k) {
          const double kp = a[k * size + p];
          const double kq = a[k * size + q];
          a[k * size + p] = c * kp - s * kq;
          a[k * size + q] = s * kp + c * kq;
        }
        for (std::size_t k = 0; k < size; ++k) {
          const double pk = a[p * size + k];
          const double qk = a[q * size + k];
          a[p * size + k] = c * pk - s * qk;
          a[q * size + k] = s * pk + c * qk;
        }
      }
    }
  }
  std::vector<double> eigenvalues(size);
  for (std::size_t i = 0; i < size; ++i) eigenvalues[i] = a[i * size + i];
  std::ranges::sort(eigenvalues);
  return eigenvalues;
}

void check_eigenvalues(const std::vector<double>& actual, const std::vector<double>& expected) {
  REQUIRE(actual.size() == expected.size());
  double worst = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) worst = std::max(worst, std::abs(actual[i] - expected[i]));
  // Rounding of float64 is a part of the largest, whatever the eigenvalue.
  CHECK(worst < 1e-13 * expected.back());
  CHECK(std::ranges::is_sorted(actual));
}

template <class Work>
void check_error(ErrorCode code, const std::string& mentions, Work&& work) {
  try {
    work();
    FAIL_CHECK("no error that mentions " << mentions);
  } catch (const Error& error) {
    CHECK_MESSAGE(error.code() == code, std::string(error.what()));
    CHECK_MESSAGE(std::string(error.what()).find(mentions) != std::string::npos, std::string(error.what()));
  }
}

}  // namespace

TEST_CASE("eigenvalues of all weights of a block are those of float64") {
  Tensors tensors = test::random_block(kArchitecture, false, 3);
  // Rows that are equal, or nothing: eigenvalues that are 0.
  std::vector<float>& gate = tensors.at(TensorRole::kGateWeight);
  std::fill_n(gate.begin(), 150 * 100, 0.0F);
  std::vector<float>& query = tensors.at(TensorRole::kQueryWeight);
  for (std::size_t row = 1; row < 150; ++row) std::copy_n(query.begin(), 150, query.begin() + static_cast<std::ptrdiff_t>(150 * row));
  // Nothing but a diagonal.
  std::vector<float>& output = tensors.at(TensorRole::kOutputWeight);
  std::ranges::fill(output, 0.0F);
  for (std::size_t i = 0; i < 150; ++i) output[i * 151] = static_cast<float>(i) - 70.0F;

  const std::unique_ptr<Backend> backend = test::open_backend(2, 1U << 28);
  const std::unique_ptr<BackendSession> session = open_with(*backend, tensors);
  const std::uint64_t used = backend->memory_used_bytes();
  CallContext context;
  for (const TensorRole role : kProjections) {
    CAPTURE(name_of(role));
    const std::vector<std::size_t> shape = test::shape_of(role, kArchitecture);
    check_eigenvalues(session->eigenvalues("block", role, context), reference_eigenvalues(tensors.at(role), shape[0], shape[1]));
  }
  CHECK(backend->memory_used_bytes() == used);
}

TEST_CASE("scores of a block that stand out are counted as in float64") {
  const Tensors tensors = test::random_block(kArchitecture, false, 4);
  const std::unique_ptr<Backend> backend = test::open_backend(2, 1U << 28);
  const std::unique_ptr<BackendSession> session = open_with(*backend, tensors);
  std::map<TensorRole, std::vector<float>> squares;
  std::vector<ProjectionInputSquares> inputs;
  std::vector<double> scores;
  for (const TensorRole role : kProjections) {
    const std::vector<std::size_t> shape = test::shape_of(role, kArchitecture);
    std::vector<float>& mean_squares = squares[role];
    // Some inputs are dead, a few far larger than the others.
    for (std::size_t i = 0; i < shape[1]; ++i)
      mean_squares.push_back(i % 17 == 0 ? 0.0F : i % 29 == 3 ? 900.0F : static_cast<float>(i % 7));
    inputs.push_back({role, mean_squares});
    const std::vector<float>& weight = tensors.at(role);
    for (std::size_t i = 0; i < weight.size(); ++i) {
      scores.push_back(static_cast<double>(std::abs(weight[i]) * std::sqrt(mean_squares[i % shape[1]])));
    }
  }
  double sum = 0;
  for (const double score : scores) sum += score;
  const double mean = sum / static_cast<double>(scores.size());
  CallContext context;
  for (const double threshold : {0.5, 5.0, 7.0, 1000.0}) {
    CAPTURE(threshold);
    const OutlierCount count = session->count_outliers("block", inputs, threshold, context);
    CHECK(count.weights == scores.size());
    CHECK(std::abs(count.mean_score / mean - 1) < 1e-12);
    CHECK(count.outliers ==
          static_cast<std::uint64_t>(std::ranges::count_if(scores, [&](double score) { return score > threshold * mean; })));
  }
  // Only what is asked for.
  CHECK(session->count_outliers("block", std::span(inputs).first(1), 5, context).weights == 150 * 150);
}

TEST_CASE("what pruning one projection after the other does to a block's output is that of float64") {
  const Tensors tensors = test::random_block(kArchitecture, false, 7);
  const std::unique_ptr<Backend> backend = test::open_backend(2, 1U << 28);
  const std::unique_ptr<BackendSession> session = open_with(*backend, tensors);
  constexpr std::size_t kSamples = 2;
  constexpr std::size_t kTokens = 11;
  std::vector<float> table(20 * 150);
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = std::sin(static_cast<float>(i) * 0.37F);
  const TensorView embedding[] = {{{TensorRole::kTokenEmbedding, ElementType::kF32, {20, 150}},
                                   {reinterpret_cast<const std::uint8_t*>(table.data()), table.size() * sizeof(float)}}};
  CallContext context;
  session->load_shard("embedding", embedding, context);
  std::vector<std::int32_t> ids;
  for (std::size_t i = 0; i < kSamples * kTokens; ++i) ids.push_back(static_cast<std::int32_t>(i * i % 20));
  session->embed("embedding", {3, kSamples, kTokens, ids}, context);
  session->embed("embedding", {2, 1, kTokens, {ids.begin() + 1, ids.begin() + 1 + kTokens}}, context);
  const std::vector<std::uint32_t> groups = {2, 3};

  const auto output_of = [&](const Tensors& block) {
    test::Values output;
    for (std::size_t sample = 0; sample < kSamples; ++sample) {
      test::Values hidden;
      for (std::size_t token = 0; token < kTokens; ++token) {
        const auto* const row = table.data() + ids[sample * kTokens + token] * 150;
        hidden.insert(hidden.end(), row, row + 150);
      }
      const test::Values of_sample = test::run_reference_block(kArchitecture, block, hidden, kTokens).output;
      output.insert(output.end(), of_sample.begin(), of_sample.end());
    }
    return output;
  };
  const auto squared = [](const test::Values& values, const test::Values& others) {
    double sum = 0;
    for (std::size_t i = 0; i < values.size(); ++i) sum += (values[i] - others[i]) * (values[i] - others[i]);
    return sum;
  };
  const test::Values dense = output_of(tensors);
  std::map<TensorRole, std::vector<float>> squares;
  std::vector<ProjectionInputSquares> inputs;
  for (const TensorRole role : kProjections) {
    // Some inputs count for nothing: ties that go by place.
    for (std::size_t i = 0; i < test::shape_of(role, kArchitecture)[1]; ++i)
      squares[role].push_back(i % 17 == 0 ? 0.0F : static_cast<float>(1 + i % 5));
    inputs.push_back({role, squares[role]});
  }
  const std::uint64_t used = backend->memory_used_bytes();
  for (const double sparsity : {0.001, 0.5, 0.8}) {
    CAPTURE(sparsity);
    // What is emulated takes its time.
    if (test::is_emulated() && sparsity == 0.8) continue;
    const std::vector<BlockSensitivity> sensitivities = session->measure_sensitivity("block", groups, inputs, sparsity, context);
    // A group that is measured beside others is measured as it is alone.
    REQUIRE(sensitivities.size() == 2);
    CHECK(sensitivities[0].errors ==
          session->measure_sensitivity("block", std::span(groups).first(1), inputs, sparsity, context)[0].errors);
    CHECK(sensitivities[0].errors != sensitivities[1].errors);
    const BlockSensitivity& sensitivity = sensitivities[1];
    CHECK(std::abs(sensitivity.output_energy / squared(dense, test::Values(dense.size())) - 1) < 1e-5);
    REQUIRE(sensitivity.errors.size() == inputs.size());
    for (std::size_t place = 0; place < inputs.size(); ++place) {
      const TensorRole role = kProjections[place];
      CAPTURE(name_of(role));
      Tensors pruned = tensors;
      std::vector<float>& weight = pruned.at(role);
      const std::size_t columns = squares.at(role).size();
      std::vector<std::pair<float, std::size_t>> scores;
      for (std::size_t i = 0; i < weight.size(); ++i)
        scores.emplace_back(std::abs(weight[i]) * std::sqrt(squares.at(role)[i % columns]), i);
      std::ranges::sort(scores);
      for (std::size_t i = 0; i < static_cast<std::size_t>(sparsity * static_cast<double>(scores.size())); ++i)
        weight[scores[i].second] = 0.0F;
      const double expected = squared(output_of(pruned), dense);
      CHECK(std::abs(sensitivity.errors[place] - expected) < 1e-3 * expected + 1e-9 * sensitivity.output_energy);
    }
  }
  // Everything is as it was.
  CHECK(backend->memory_used_bytes() - used < 2'000'000);
  session->propagate("block", 3, context);
  session->load_shard("next", test::views_of(tensors, kArchitecture), context);
  session->embed("embedding", {4, kSamples, kTokens, ids}, context);
  session->propagate("next", 4, context);
  const auto squares_of = [&](std::uint32_t group) { return session->collect_statistics("next", group, context).back().sums_of_squares; };
  CHECK(squares_of(3) == squares_of(4));
}

TEST_CASE("what is measured of a block does not depend on the number of threads") {
  const Tensors tensors = test::random_block(kArchitecture, false, 5);
  const std::vector<float> squares(150, 2.0F);
  const auto measure = [&](std::size_t threads) {
    const std::unique_ptr<Backend> backend = test::open_backend(threads, 1U << 28);
    const std::unique_ptr<BackendSession> session = open_with(*backend, tensors);
    CallContext context;
    const ProjectionInputSquares input[] = {{TensorRole::kUpWeight, squares}};
    std::vector<double> measured = session->eigenvalues("block", TensorRole::kDownWeight, context);
    measured.push_back(session->count_outliers("block", input, 3, context).mean_score);
    return measured;
  };
  const std::vector<double> expected = measure(1);
  CHECK(measure(2) == expected);
  CHECK(measure(3) == expected);
}

TEST_CASE("what cannot be measured of a block is named, and a cancelled measurement stops") {
  const std::unique_ptr<Backend> backend = test::open_backend(2, 1U << 28);
  const std::unique_ptr<BackendSession> session = open_with(*backend, test::random_block(kArchitecture, false, 6));
  const std::vector<float> squares(150, 1.0F);
  std::atomic<bool> cancelled = false;
  CallContext context(&cancelled);
  const auto count = [&](std::vector<ProjectionInputSquares> inputs, double threshold) {
    session->count_outliers("block", inputs, threshold, context);
  };
  check_error(ErrorCode::kFailedPrecondition, "No shard other", [&] { session->eigenvalues("other", TensorRole::kUpWeight, context); });
  check_error(ErrorCode::kInvalidArgument, "norm-weight",
              [&] { session->eigenvalues("block", TensorRole::kAttentionNormWeight, context); });
  check_error(ErrorCode::kInvalidArgument, "threshold", [&] { count({{TensorRole::kUpWeight, squares}}, 0); });
  check_error(ErrorCode::kInvalidArgument, "meanSquares", [&] { count({{TensorRole::kDownWeight, squares}}, 5); });
  check_error(ErrorCode::kInvalidArgument, "no weights", [&] { count({}, 5); });
  check_error(ErrorCode::kFailedPrecondition, "Group 0",
              [&] { session->measure_sensitivity("block", std::vector<std::uint32_t>{0}, {}, 0.5, context); });
  std::vector<float> infinite = squares;
  infinite[7] = INFINITY;
  check_error(ErrorCode::kNonFinite, "column 7", [&] { count({{TensorRole::kUpWeight, infinite}}, 5); });
  cancelled = true;
  check_error(ErrorCode::kCancelled, "cancelled", [&] { session->eigenvalues("block", TensorRole::kUpWeight, context); });
  check_error(ErrorCode::kCancelled, "cancelled", [&] { count({{TensorRole::kUpWeight, squares}}, 5); });
}
