#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "backend_under_test.h"
#include "reference_block.h"
#include "secateur/backend.h"

using namespace secateur;

namespace {

constexpr std::size_t kHidden = 12;
constexpr std::size_t kSamples = 2;

// A model without blocks: hidden states are rows of the table, logits their normalised form times the head.
struct Model {
  Model(std::size_t vocabulary, std::size_t threads, double scale) : backend(test::open_backend(threads, 1U << 28)) {
    architecture = {
        kHidden, 1, 1, 1, 2, vocabulary, 4096, Normalization::kRms, 1e-6, PositionEncoding::kRotary, 10000.0, 0, FeedForward::kGatedSilu};
    std::mt19937 generator(3);
    std::normal_distribution<float> normal;
    table.resize(vocabulary * kHidden);
    for (float& value : table) value = normal(generator);
    head = table;
    for (float& value : head) value = static_cast<float>(scale) * normal(generator);
    session = backend->open_session(architecture, Compute::kF32);
    session->load_shard("embedding", std::vector<TensorView>{view(TensorRole::kTokenEmbedding, table)}, context);
    session->load_shard("head", std::vector<TensorView>{view(TensorRole::kFinalNormWeight, ones), view(TensorRole::kHeadWeight, head)},
                        context);
  }

  TensorView view(TensorRole role, const std::vector<float>& values) const { return test::view_of(role, architecture, values); }

  std::vector<double> measure(std::size_t length, const std::vector<TokenRange>& ranges = {}) {
    GroupTokens group{0, kSamples, length, {}};
    for (std::size_t i = 0; i < kSamples * length; ++i) {
      group.ids.push_back(static_cast<std::int32_t>((i * 7919 + i / 3) % architecture.vocabulary_size));
    }
    ids = group.ids;
    session->embed("embedding", group, context);
    return session->measure_loss("head", 0, ranges, context);
  }

  double reference(std::size_t sample, std::size_t length) const { return reference(sample, length, {1, length}); }

  double reference(std::size_t sample, std::size_t length, const TokenRange& range) const {
    double loss = 0;
    for (std::size_t token = range.first - 1; token + 1 < range.end; ++token) {
      const auto id = static_cast<std::size_t>(ids[sample * length + token]);
      const auto next = static_cast<std::size_t>(ids[sample * length + token + 1]);
      const test::Values state(table.begin() + static_cast<std::ptrdiff_t>(id * kHidden),
                               table.begin() + static_cast<std::ptrdiff_t>((id + 1) * kHidden));
      const test::Values normed = test::normalize_reference(architecture, state, 1, ones, nullptr);
      test::Values logits(architecture.vocabulary_size, 0.0);
      double largest = -INFINITY;
      for (std::size_t word = 0; word < logits.size(); ++word) {
        for (std::size_t i = 0; i < kHidden; ++i) logits[word] += normed[i] * static_cast<double>(head[word * kHidden + i]);
        largest = std::max(largest, logits[word]);
      }
      double sum = 0;
      for (const double logit : logits) sum += std::exp(logit - largest);
      loss += largest + std::log(sum) - logits[next];
    }
    return loss / static_cast<double>(range.end - range.first);
  }

  std::unique_ptr<Backend> backend;
  std::unique_ptr<BackendSession> session;
  CallContext context;
  Architecture architecture;
  const std::vector<float> ones = std::vector<float>(kHidden, 1.0F);
  std::vector<float> table;
  std::vector<float> head;
  std::vector<std::int32_t> ids;
};

}  // namespace

TEST_CASE("the loss agrees with float64 whatever tiles of tokens and vocabulary it is cut into") {
  for (const std::size_t vocabulary : {1U, 33U, 4095U, 4096U, 4097U, 9000U}) {
    for (const double scale : {1.0, 60.0}) {
      Model model(vocabulary, 2, scale);
      for (const std::size_t length : {2U, 257U, 258U}) {
        // Tiles of many tokens with few words, and tiles of words with few tokens, as below: a GPU's are larger than these lengths.
        if (test::is_emulated() && vocabulary > 33 && length > 2) continue;
        CAPTURE(vocabulary);
        CAPTURE(length);
        const std::vector<double> losses = model.measure(length);
        REQUIRE(losses.size() == kSamples);
        // Logits reach about 14 · scale; float32 rounds the few largest parts of each to 2^-24 of that.
        const double tolerance = 4 * 14 * scale / (1 << 24);
        for (std::size_t sample = 0; sample < kSamples; ++sample) {
          CHECK(std::abs(losses[sample] - model.reference(sample, length)) < tolerance);
        }
      }
    }
  }
}

TEST_CASE("the loss of a range is that of its tokens alone, whatever comes after them") {
  struct Case {
    std::size_t vocabulary;
    std::size_t length;
    TokenRange range;
    // The other sample has another one, so that places do not depend on equal lengths.
    TokenRange other;
  };
  // Tiles of many tokens with few words, and tiles of words with few tokens: emulated devices take long for both at once.
  for (const Case& c : {Case{33, 1100, {37, 1090}, {1, 2}}, {33, 1100, {1099, 1100}, {5, 300}}, {9000, 8, {2, 5}, {6, 8}}}) {
    CAPTURE(c.vocabulary);
    CAPTURE(c.range.first);
    Model model(c.vocabulary, 2, 1.0);
    const double tolerance = 4.0 * 14 / (1 << 24);
    const std::vector<double> losses = model.measure(c.length, {c.range, c.other});
    REQUIRE(losses.size() == kSamples);
    CHECK(std::abs(losses[0] - model.reference(0, c.length, c.range)) < tolerance);
    CHECK(std::abs(losses[1] - model.reference(1, c.length, c.other)) < tolerance);
  }
  Model model(33, 1, 1.0);
  CHECK(model.measure(20, {{1, 20}, {1, 20}}) == model.measure(20));
}

TEST_CASE("ranges that cannot be measured are refused") {
  Model model(33, 1, 1.0);
  const TokenRange good = {1, 4};
  const std::vector<std::vector<TokenRange>> wrong = {{good},         {good, good, good}, {good, {0, 4}},
                                                      {good, {2, 2}}, {good, {3, 2}},     {{1, 5}, good}};
  for (const std::vector<TokenRange>& ranges : wrong) {
    try {
      model.measure(4, ranges);
      FAIL_CHECK("no error");
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kInvalidArgument);
      CHECK(std::string(error.what()).find("roup 0") != std::string::npos);
    }
  }
}

TEST_CASE("the loss has the same bits on any number of threads") {
  // Threads are the CPU's; what is emulated takes its time.
  const std::size_t vocabulary = test::is_emulated() ? 33 : 5000;
  const std::vector<double> losses = Model(vocabulary, 1, 1.0).measure(600);
  for (const std::size_t threads : {2U, 5U}) CHECK(Model(vocabulary, threads, 1.0).measure(600) == losses);
}

TEST_CASE("a loss of one token is refused, one that is not finite is an error that names the group") {
  Model model(5000, 1, 1.0);
  const auto code_of = [&](std::size_t length) {
    try {
      model.measure(length);
    } catch (const Error& error) {
      CHECK_MESSAGE((length == 1 || std::string(error.what()).find("group 0") != std::string::npos), std::string(error.what()));
      return error.code();
    }
    return ErrorCode::kInternal;
  };
  CHECK(code_of(1) == ErrorCode::kInvalidArgument);
  model.session->release_shard("head");
  // Beyond the first tile of the vocabulary.
  model.head[4500 * kHidden] = std::numeric_limits<float>::quiet_NaN();
  model.session->load_shard(
      "head",
      std::vector<TensorView>{model.view(TensorRole::kFinalNormWeight, model.ones), model.view(TensorRole::kHeadWeight, model.head)},
      model.context);
  CHECK(code_of(3) == ErrorCode::kNonFinite);
}
