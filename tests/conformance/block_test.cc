#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend_under_test.h"
#include "common/sketch_signs.h"
#include "reference_block.h"
#include "secateur/backend.h"

using namespace secateur;
using secateur::test::Values;

namespace {

struct Case {
  std::string name;
  Architecture architecture;
  bool biases;
  std::size_t tokens;
  std::size_t window = 0;
  bool head_norms = false;
};

Architecture rotary(std::size_t hidden, std::size_t heads, std::size_t key_heads, std::size_t head_dimension, std::size_t intermediate) {
  return {hidden,
          intermediate,
          heads,
          key_heads,
          head_dimension,
          50,
          512,
          Normalization::kRms,
          1e-6,
          PositionEncoding::kRotary,
          10000.0,
          0,
          FeedForward::kGatedSilu};
}

Architecture learned(std::size_t hidden, std::size_t heads, std::size_t intermediate) {
  return {hidden, intermediate,      heads, heads, hidden / heads, 50, 512, Normalization::kLayer, 1e-5, PositionEncoding::kLearned, 0.0,
          2,      FeedForward::kRelu};
}

Architecture linear(Architecture architecture) {
  architecture.rotary_scaling = RotaryScaling::kLinear;
  architecture.rotary_factor = 3;
  return architecture;
}

// Of the pairs of 16 dimensions, some are slower than both limits, some between them and some faster.
Architecture llama3(Architecture architecture) {
  architecture.rotary_scaling = RotaryScaling::kLlama3;
  architecture.rotary_factor = 8;
  architecture.low_frequency_factor = 1;
  architecture.high_frequency_factor = 4;
  architecture.original_positions = 64;
  return architecture;
}

Architecture post_norm(Architecture architecture, std::size_t embedding_size) {
  architecture.post_normalization = true;
  architecture.final_normalization = false;
  architecture.embedding_size = embedding_size;
  return architecture;
}

const Case kCases[] = {
    {"one token", rotary(16, 2, 2, 8, 24), false, 1},
    {"one head", rotary(12, 1, 1, 12, 20), false, 31},
    {"grouped queries with biases", rotary(40, 8, 2, 6, 52), true, 129},
    {"more than one tile of tokens", rotary(24, 4, 2, 6, 40), false, 300},
    {"heads wider than the hidden states", rotary(18, 2, 1, 14, 33), true, 33},
    {"learned positions with biases", learned(30, 5, 71), true, 257},
    {"learned positions without biases", learned(16, 4, 20), false, 128},
    {"normalised heads, wider than the hidden states", rotary(20, 4, 2, 12, 32), false, 70, 0, true},
    {"a window of less than a tile", rotary(16, 2, 1, 8, 24), false, 210, 5},
    {"a window of more than a tile, biases everywhere", rotary(16, 2, 2, 8, 24), true, 210, 101},
    {"a window as long as the sample", rotary(16, 2, 2, 8, 24), false, 65, 65},
    {"linear frequencies", linear(rotary(24, 2, 1, 16, 32)), false, 90},
    {"llama3 frequencies, normalised heads and a window of one", llama3(rotary(24, 2, 1, 16, 32)), false, 90, 1, true},
    {"llama3 frequencies", llama3(rotary(24, 2, 1, 16, 32)), false, 90},
    {"normalised afterwards, from narrower tokens", post_norm(learned(30, 5, 71), 13), true, 130},
    {"normalised afterwards, from wider tokens", post_norm(learned(16, 2, 20), 21), false, 257},
};

Architecture with_positions(Architecture architecture, std::size_t positions) {
  architecture.maximum_positions = positions;
  return architecture;
}

// As wide as heads of real models are, and a group that a device runs in more than one part. Too much to be emulated; the kernels that they
// take have tests of their own.
const Case kLargerCases[] = {
    {"heads of 64", rotary(48, 2, 1, 64, 80), false, 257},
    {"heads of 80 with biases", rotary(40, 3, 1, 80, 72), true, 100},
    {"heads of 96", rotary(40, 2, 2, 96, 72), false, 130},
    {"normalised heads of 128 in groups", rotary(64, 4, 2, 128, 96), false, 200, 0, true},
    {"heads of 128 and a window", rotary(64, 2, 1, 128, 96), true, 300, 150},
    {"4500 tokens", with_positions(rotary(24, 2, 1, 32, 40), 1500), false, 1500},
};

constexpr std::size_t kSamples = 3;

// A session of `threads` threads with one block loaded and the hidden states of a group embedded from a random table.
struct Fixture {
  Fixture(const Case& test_case, std::size_t threads, Precision precision = Compute::kF32)
      : tokens(test_case.tokens),
        backend(test::open_backend(threads, 1U << 30)),
        session(backend->open_session(test_case.architecture, precision)) {
    const Architecture& a = test_case.architecture;
    block = test::random_block(a, test_case.biases, 11, test_case.head_norms);
    session->load_shard("block", test::views_of(block, a), test_case.window, context);

    std::mt19937 generator(12);
    std::normal_distribution<float> normal;
    table.resize(a.vocabulary_size * a.token_width());
    for (float& value : table) value = normal(generator);
    positions.assign((a.maximum_positions + a.learned_position_offset) * a.hidden_size, 0.0F);
    for (float& value : positions) value = normal(generator);
    std::vector<TensorView> embedding = {test::view_of(TensorRole::kTokenEmbedding, a, table)};
    if (a.position_encoding == PositionEncoding::kLearned) embedding.push_back(test::view_of(TensorRole::kPositionEmbedding, a, positions));
    const auto random_projection = [&] {
      std::vector<float> values(a.hidden_size * a.embedding_size);
      for (float& value : values) value = normal(generator) / std::sqrt(static_cast<float>(a.hidden_size));
      return values;
    };
    embedding_projection = random_projection();
    head_projection = random_projection();
    if (a.embedding_size > 0) embedding.push_back(test::view_of(TensorRole::kEmbeddingProjectionWeight, a, embedding_projection));
    session->load_shard("embedding", embedding, context);
    GroupTokens group{4, kSamples, tokens, {}};
    for (std::size_t i = 0; i < kSamples * tokens; ++i) group.ids.push_back(static_cast<std::int32_t>((i * 7 + i / 5) % a.vocabulary_size));
    ids = group.ids;
    session->embed("embedding", group, context);
  }

  // The reference's hidden states of one sample.
  Values hidden(const Architecture& a, std::size_t sample) const {
    const std::size_t width = a.token_width();
    Values states(tokens * width);
    for (std::size_t token = 0; token < tokens; ++token) {
      const auto id = static_cast<std::size_t>(ids[sample * tokens + token]);
      for (std::size_t i = 0; i < width; ++i) states[token * width + i] = static_cast<double>(table[id * width + i]);
    }
    if (a.embedding_size > 0) states = test::project(states, tokens, embedding_projection, a.hidden_size, nullptr);
    for (std::size_t token = 0; token < tokens; ++token) {
      for (std::size_t i = 0; i < a.hidden_size; ++i) {
        if (a.position_encoding == PositionEncoding::kLearned) {
          states[token * a.hidden_size + i] += static_cast<double>(positions[(token + a.learned_position_offset) * a.hidden_size + i]);
        }
      }
    }
    return states;
  }

  std::size_t tokens;
  CallContext context;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<BackendSession> session;
  std::map<TensorRole, std::vector<float>> block;
  std::vector<float> table;
  std::vector<float> positions;
  std::vector<float> embedding_projection;
  std::vector<float> head_projection;
  std::vector<std::int32_t> ids;
};

// The head of a model whose logits are its hidden states, normalised and projected as the architecture says, times the token table.
std::vector<float> logits_of(Fixture& fixture, const Architecture& a, std::vector<double>* losses) {
  std::vector<float> norm(a.hidden_size, 1.0F);
  std::vector<float> bias(a.hidden_size, 0.0F);
  std::vector<TensorView> head = {test::view_of(TensorRole::kHeadWeight, a, fixture.table)};
  if (a.final_normalization) {
    head.push_back(test::view_of(TensorRole::kFinalNormWeight, a, norm));
    if (a.normalization == Normalization::kLayer) head.push_back(test::view_of(TensorRole::kFinalNormBias, a, bias));
  }
  if (a.embedding_size > 0) head.push_back(test::view_of(TensorRole::kHeadProjectionWeight, a, fixture.head_projection));
  fixture.session->load_shard("head", head, fixture.context);
  if (losses != nullptr) *losses = fixture.session->measure_loss("head", 4, {}, fixture.context);
  return fixture.session->last_logits("head", 4, fixture.context);
}

}  // namespace

TEST_CASE("statistics and output of a block agree with float64") {
  for (const Case& test_case : kCases) {
    INFO(test_case.name);
    const Architecture& a = test_case.architecture;
    Fixture fixture(test_case, 2);
    const std::vector<SiteStatistics> statistics = fixture.session->collect_statistics("block", 4, fixture.context);
    REQUIRE(statistics.size() == 4);
    std::vector<test::ReferenceResult> expected;
    for (std::size_t sample = 0; sample < kSamples; ++sample) {
      expected.push_back(test::run_reference_block(a, fixture.block, fixture.hidden(a, sample), fixture.tokens, test_case.window));
    }
    for (std::size_t site = 0; site < 4; ++site) {
      const std::size_t width = statistics[site].sums_of_squares.size();
      REQUIRE(statistics[site].quality_inputs.size() == kSamples * width);
      for (std::size_t column = 0; column < width; ++column) {
        double sum = 0;
        for (std::size_t sample = 0; sample < kSamples; ++sample) {
          const Values& inputs = expected[sample].sites[site];
          REQUIRE(inputs.size() == fixture.tokens * width);
          for (std::size_t token = 0; token < fixture.tokens; ++token)
            sum += inputs[token * width + column] * inputs[token * width + column];
          const double last = inputs[(fixture.tokens - 1) * width + column];
          REQUIRE(std::abs(static_cast<double>(statistics[site].quality_inputs[sample * width + column]) - last) < 2e-5);
        }
        REQUIRE(statistics[site].sums_of_squares[column] == doctest::Approx(sum).epsilon(1e-4));
      }
    }

    fixture.session->propagate("block", 4, fixture.context);
    std::vector<double> losses;
    const std::vector<float> logits = logits_of(fixture, a, fixture.tokens > 1 ? &losses : nullptr);
    const std::vector<float> ones(a.hidden_size, 1.0F);
    for (std::size_t sample = 0; sample < kSamples; ++sample) {
      Values head_input = expected[sample].output;
      if (a.final_normalization) head_input = test::normalize_reference(a, head_input, fixture.tokens, ones, nullptr);
      if (a.embedding_size > 0) {
        head_input = test::project(head_input, fixture.tokens, fixture.head_projection, a.embedding_size, nullptr);
      }
      const std::size_t width = a.token_width();
      double loss = 0;
      for (std::size_t token = 0; token < fixture.tokens; ++token) {
        Values row(a.vocabulary_size, 0.0);
        double sum = 0;
        for (std::size_t word = 0; word < a.vocabulary_size; ++word) {
          for (std::size_t i = 0; i < width; ++i) {
            row[word] += head_input[token * width + i] * static_cast<double>(fixture.table[word * width + i]);
          }
          sum += std::exp(row[word]);
        }
        if (token + 1 < fixture.tokens) {
          loss += std::log(sum) - row[static_cast<std::size_t>(fixture.ids[sample * fixture.tokens + token + 1])];
        } else if (sample == 0) {
          for (std::size_t word = 0; word < a.vocabulary_size; ++word)
            REQUIRE(std::abs(static_cast<double>(logits[word]) - row[word]) < 2e-4);
        }
      }
      if (fixture.tokens > 1) REQUIRE(losses[sample] == doctest::Approx(loss / static_cast<double>(fixture.tokens - 1)).epsilon(1e-5));
    }
  }
}

TEST_CASE("results are the same bits on any number of threads, and collecting changes nothing") {
  for (const Case& test_case : kCases) {
    INFO(test_case.name);
    std::vector<SiteStatistics> first_statistics;
    std::vector<float> first_logits;
    for (const std::size_t threads : {1U, 2U, 3U}) {
      // Threads are the CPU's; what is emulated takes its time, and collects twice with one thread already.
      if (test::is_emulated() && (threads == 3 || (threads == 2 && test_case.tokens > 130))) continue;
      Fixture fixture(test_case, threads);
      const std::vector<SiteStatistics> statistics = fixture.session->collect_statistics("block", 4, fixture.context);
      const std::vector<SiteStatistics> again = fixture.session->collect_statistics("block", 4, fixture.context);
      fixture.session->propagate("block", 4, fixture.context);
      const std::vector<float> logits = logits_of(fixture, test_case.architecture, nullptr);
      if (threads == 1) {
        first_statistics = statistics;
        first_logits = logits;
      }
      CHECK(logits == first_logits);
      for (std::size_t site = 0; site < 4; ++site) {
        REQUIRE(statistics[site].sums_of_squares == first_statistics[site].sums_of_squares);
        REQUIRE(statistics[site].quality_inputs == first_statistics[site].quality_inputs);
        REQUIRE(again[site].sums_of_squares == statistics[site].sums_of_squares);
      }
    }
  }
}

TEST_CASE("sketches are sums of the inputs of all tokens with random signs, and change nothing else") {
  constexpr std::size_t kSketches = 3;
  for (const Case& test_case : kCases) {
    CAPTURE(test_case.name);
    const Architecture& a = test_case.architecture;
    Fixture fixture(test_case, 2);
    const std::vector<SiteStatistics> plain = fixture.session->collect_statistics("block", 4, fixture.context);
    const std::vector<SiteStatistics> sketched =
        fixture.session->collect_statistics("block", 4, InputSites::all(), kSketches, fixture.context);
    for (std::size_t sample = 0; sample < kSamples; ++sample) {
      const test::ReferenceResult expected =
          test::run_reference_block(a, fixture.block, fixture.hidden(a, sample), fixture.tokens, test_case.window);
      for (std::size_t site = 0; site < 4; ++site) {
        CAPTURE(site);
        const std::size_t width = plain[site].sums_of_squares.size();
        REQUIRE(sketched[site].sums_of_squares == plain[site].sums_of_squares);
        REQUIRE(sketched[site].quality_inputs.size() == kSamples * kSketches * width);
        const float* const sketches = sketched[site].quality_inputs.data() + sample * kSketches * width;
        for (std::size_t i = 0; i < kSketches * width; ++i) {
          const std::size_t sketch = i / width;
          double sum = 0;
          double squares = 0;
          for (std::size_t token = 0; token < fixture.tokens; ++token) {
            const double input = expected.sites[site][token * width + i % width];
            const std::uint64_t signs = sketch_signs({.group = 4, .sample = sample, .sketch = sketch}, token / 64);
            sum += (signs >> token % 64 & 1U) != 0 ? -input : input;
            squares += input * input;
          }
          const double scale = 1 / std::sqrt(static_cast<double>(fixture.tokens));
          REQUIRE(std::abs(static_cast<double>(sketches[i]) - sum * scale) < 2e-5 + 1e-5 * std::sqrt(squares) * scale);
        }
      }
    }
  }
}

TEST_CASE("sketches are the same bits on any number of threads, and those of another group have other signs") {
  for (const Case& test_case : {kCases[3], kCases[5]}) {
    std::vector<std::vector<SiteStatistics>> results;
    for (const std::size_t threads : {1U, 3U}) {
      Fixture fixture(test_case, threads);
      results.push_back(fixture.session->collect_statistics("block", 4, InputSites::all(), 2, fixture.context));
      if (threads == 1) continue;
      fixture.session->embed("embedding", {5, kSamples, fixture.tokens, fixture.ids}, fixture.context);
      const std::vector<SiteStatistics> other = fixture.session->collect_statistics("block", 5, InputSites::all(), 2, fixture.context);
      CHECK(other[0].sums_of_squares == results[0][0].sums_of_squares);
      CHECK(other[0].quality_inputs != results[0][0].quality_inputs);
    }
    for (std::size_t site = 0; site < 4; ++site) CHECK(results[0][site].quality_inputs == results[1][site].quality_inputs);
  }
}

TEST_CASE("too many sketches are refused") {
  Fixture fixture(kCases[1], 1);
  try {
    fixture.session->collect_statistics("block", 4, InputSites::all(), kMostSketches + 1, fixture.context);
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kInvalidArgument);
  }
  CHECK(fixture.session->collect_statistics("block", 4, InputSites::all(), kMostSketches, fixture.context).size() == 4);
}

TEST_CASE("masked weights are zero in what the block computes") {
  const Case& test_case = kCases[2];
  const Architecture& a = test_case.architecture;
  Fixture fixture(test_case, 2);
  const std::size_t row_bytes = (a.hidden_size + 7) / 8;
  std::vector<std::uint8_t> mask(a.query_width() * row_bytes, 0);
  std::vector<float>& weight = fixture.block.at(TensorRole::kQueryWeight);
  for (std::size_t row = 0; row < a.query_width(); ++row) {
    for (std::size_t column = row % 3; column < a.hidden_size; column += 3) {
      mask[row * row_bytes + column / 8] = static_cast<std::uint8_t>(mask[row * row_bytes + column / 8] | (1U << (column % 8)));
      weight[row * a.hidden_size + column] = 0.0F;
    }
  }
  fixture.session->apply_mask("block", TensorRole::kQueryWeight, mask, fixture.context);
  const std::vector<SiteStatistics> statistics = fixture.session->collect_statistics("block", 4, fixture.context);
  const test::ReferenceResult expected = test::run_reference_block(a, fixture.block, fixture.hidden(a, 0), fixture.tokens);
  for (std::size_t column = 0; column < a.query_width(); ++column) {
    const double last = expected.sites[1][(fixture.tokens - 1) * a.query_width() + column];
    REQUIRE(std::abs(static_cast<double>(statistics[1].quality_inputs[column]) - last) < 2e-5);
  }
}

// Drops most weights of every projection, in the session and in the reference's tensors.
void prune(Fixture& fixture, const Architecture& a) {
  std::mt19937 generator(21);
  std::bernoulli_distribution drop(0.8);
  for (auto& [role, values] : fixture.block) {
    const std::vector<std::size_t> shape = test::shape_of(role, a);
    if (shape.size() != 2) continue;
    const std::size_t row_bytes = (shape[1] + 7) / 8;
    std::vector<std::uint8_t> mask(shape[0] * row_bytes, 0);
    for (std::size_t row = 0; row < shape[0]; ++row) {
      for (std::size_t column = 0; column < shape[1]; ++column) {
        if (!drop(generator)) continue;
        mask[row * row_bytes + column / 8] = static_cast<std::uint8_t>(mask[row * row_bytes + column / 8] | (1U << (column % 8)));
        values[row * shape[1] + column] = 0.0F;
      }
    }
    fixture.session->apply_mask("block", role, mask, fixture.context);
  }
}

// Largest difference of the last inputs of a site from the reference's, relative to the largest of these.
double site_error(const SiteStatistics& statistics, const std::vector<test::ReferenceResult>& expected, std::size_t tokens) {
  const auto site = static_cast<std::size_t>(statistics.site);
  const std::size_t width = statistics.sums_of_squares.size();
  double difference = 0;
  double largest = 1e-30;
  for (std::size_t sample = 0; sample < expected.size(); ++sample) {
    for (std::size_t column = 0; column < width; ++column) {
      const double value = expected[sample].sites[site][(tokens - 1) * width + column];
      difference = std::max(difference, std::abs(static_cast<double>(statistics.quality_inputs[sample * width + column]) - value));
      largest = std::max(largest, std::abs(value));
    }
  }
  return difference / largest;
}

constexpr double kF32Tolerance = 1e-5;
// bfloat16 has 8 bits of mantissa, float16 11, and inputs pass through up to three products.
constexpr double kBF16Tolerance = 3e-2;
constexpr double kF16Tolerance = 4e-3;

// The statistics of two blocks of the same weights, one after the other, against float64.
void check_agreement(const Case& test_case, Compute compute, bool pruned, double tolerance) {
  const Architecture& a = test_case.architecture;
  Fixture fixture(test_case, 2, compute);
  if (pruned) prune(fixture, a);
  std::vector<test::ReferenceResult> expected;
  for (std::size_t sample = 0; sample < kSamples; ++sample) {
    expected.push_back(test::run_reference_block(a, fixture.block, fixture.hidden(a, sample), fixture.tokens, test_case.window));
  }
  for (const SiteStatistics& statistics : fixture.session->collect_statistics("block", 4, fixture.context)) {
    CAPTURE(name_of(statistics.site));
    CHECK(site_error(statistics, expected, fixture.tokens) < tolerance);
  }
  // The hidden states that come out are the next block's: its first site tells them.
  fixture.session->propagate("block", 4, fixture.context);
  const std::vector<SiteStatistics> next = fixture.session->collect_statistics("block", 4, fixture.context);
  for (std::size_t sample = 0; sample < kSamples; ++sample) {
    expected[sample] = test::run_reference_block(a, fixture.block, expected[sample].output, fixture.tokens, test_case.window);
  }
  CHECK(site_error(next[0], expected, fixture.tokens) < 2 * tolerance);
}

TEST_CASE("a block pruned to 80 %, and one computed in bf16 or f16, agree with float64") {
  struct Kind {
    std::string name;
    Compute compute;
    bool pruned;
    double tolerance;
  };
  const Kind kinds[] = {{"pruned f32", Compute::kF32, true, kF32Tolerance},
                        {"dense bf16", Compute::kBF16, false, kBF16Tolerance},
                        {"pruned bf16", Compute::kBF16, true, kBF16Tolerance},
                        {"dense f16", Compute::kF16, false, kF16Tolerance},
                        {"pruned f16", Compute::kF16, true, kF16Tolerance}};
  for (const Kind& kind : kinds) {
    if (const std::string reason = test::why_no(kind.compute); !reason.empty()) {
      MESSAGE("skipped: " << kind.name << ", because " << reason);
      continue;
    }
    // Masks and products are tested apart already; what is emulated takes its time.
    if (test::is_emulated() && kind.compute != Compute::kF32 && kind.pruned) continue;
    for (const Case& test_case : kCases) {
      CAPTURE(kind.name);
      CAPTURE(test_case.name);
      check_agreement(test_case, kind.compute, kind.pruned, kind.tolerance);
    }
  }
}

TEST_CASE("blocks of the widths of real models agree with float64") {
  if (test::is_emulated()) return;
  for (const Case& test_case : kLargerCases) {
    CAPTURE(test_case.name);
    check_agreement(test_case, Compute::kF32, false, kF32Tolerance);
    check_agreement(test_case, Compute::kF32, true, kF32Tolerance);
    for (const auto& [compute, tolerance] : {std::pair(Compute::kBF16, kBF16Tolerance), std::pair(Compute::kF16, kF16Tolerance)}) {
      if (!test::why_no(compute).empty()) continue;
      check_agreement(test_case, compute, false, tolerance);
      check_agreement(test_case, compute, true, tolerance);
    }
  }
}

TEST_CASE("a block that comes pruned gives the same bits as one that is pruned here") {
  const Case& test_case = kCases[test::is_emulated() ? 2 : 3];
  const Architecture& a = test_case.architecture;
  for (const Compute compute : {Compute::kF32, Compute::kBF16, Compute::kF16}) {
    if (!test::why_no(compute).empty()) continue;
    Fixture here(test_case, 2, compute);
    prune(here, a);
    Fixture before(test_case, 2, compute);
    before.session->release_shard("block");
    before.session->load_shard("block", test::views_of(here.block, a), test_case.window, before.context);
    for (Fixture* const fixture : {&here, &before}) fixture->session->propagate("block", 4, fixture->context);
    CHECK(here.session->save_hidden_states(4, here.context) == before.session->save_hidden_states(4, before.context));
  }
}

// To the nearest of 8 significant bits, ties to even.
double rounded_to_bf16(double value) {
  int exponent = 0;
  const double fraction = std::frexp(value, &exponent);
  return std::ldexp(std::nearbyint(std::ldexp(fraction, 8)), exponent - 8);
}

TEST_CASE("hidden states kept in bf16 are rounded between blocks and nowhere else") {
  const Precision narrow(Compute::kF32, HiddenStates::kBF16);
  for (const Case& test_case : kCases) {
    CAPTURE(test_case.name);
    const Architecture& a = test_case.architecture;
    // Embeddings that are projected in float32 may round to other neighbours than those in float64.
    if (a.embedding_size > 0) continue;
    // What is emulated takes its time.
    if (test::is_emulated() && test_case.tokens > 130) continue;
    Fixture fixture(test_case, 2, narrow);
    std::vector<test::ReferenceResult> expected;
    for (std::size_t sample = 0; sample < kSamples; ++sample) {
      Values states = fixture.hidden(a, sample);
      // Embeddings are added in float32.
      for (double& state : states) state = rounded_to_bf16(static_cast<double>(static_cast<float>(state)));
      expected.push_back(test::run_reference_block(a, fixture.block, states, fixture.tokens, test_case.window));
    }
    // As exact as with float32, from rounded hidden states on.
    for (const SiteStatistics& statistics : fixture.session->collect_statistics("block", 4, fixture.context)) {
      CAPTURE(name_of(statistics.site));
      CHECK(site_error(statistics, expected, fixture.tokens) < 1e-5);
    }
    fixture.session->propagate("block", 4, fixture.context);
    const std::vector<SiteStatistics> next = fixture.session->collect_statistics("block", 4, fixture.context);
    // Float32 and float64 may round to neighbours where they differ by a hair: the output is held to the step of bf16 instead.
    for (test::ReferenceResult& result : expected) {
      result = test::run_reference_block(a, fixture.block, result.output, fixture.tokens, test_case.window);
    }
    const double error = site_error(next[0], expected, fixture.tokens);
    CHECK(error < 1.0 / 128);
    CHECK(error > 1e-5);
  }
}

TEST_CASE("hidden states kept in bf16 are the same bits on any number of threads") {
  if (!test::is_cpu()) return;
  for (const Case& test_case : {kCases[2], kCases[5]}) {
    CAPTURE(test_case.name);
    std::vector<std::vector<float>> logits;
    for (const std::size_t threads : {1U, 3U}) {
      Fixture fixture(test_case, threads, {Compute::kF32, HiddenStates::kBF16});
      fixture.session->propagate("block", 4, fixture.context);
      logits.push_back(logits_of(fixture, test_case.architecture, nullptr));
    }
    CHECK(logits[0] == logits[1]);
  }
}

TEST_CASE("statistics of some sites are the same bits as those of all") {
  for (const Case& test_case : kCases) {
    // What is emulated takes its time. Sites depend on the kind of feed-forward network, not on how heads are grouped or rotated.
    const bool gated = test_case.architecture.feed_forward == FeedForward::kGatedSilu;
    if (test::is_emulated() && test_case.tokens > (gated ? 70 : 130)) continue;
    CAPTURE(test_case.name);
    for (const bool pruned : {false, true}) {
      if (pruned && test::is_emulated()) continue;
      CAPTURE(pruned);
      Fixture fixture(test_case, 2);
      if (pruned) prune(fixture, test_case.architecture);
      const auto collect = [&](InputSites sites) { return fixture.session->collect_statistics("block", 4, sites, fixture.context); };
      const std::vector<SiteStatistics> all = collect(InputSites::all());
      const auto check_same = [&](const std::vector<SiteStatistics>& some, const std::vector<std::size_t>& places) {
        REQUIRE(some.size() == places.size());
        for (std::size_t i = 0; i < places.size(); ++i) {
          CHECK(some[i].site == all[places[i]].site);
          CHECK(some[i].sums_of_squares == all[places[i]].sums_of_squares);
          CHECK(some[i].quality_inputs == all[places[i]].quality_inputs);
        }
      };
      for (std::size_t place = 0; place < all.size(); ++place) check_same(collect({all[place].site}), {place});
      check_same(collect({InputSite::kFeedForwardInput, InputSite::kAttentionInput}), {0, 2});
      check_same(collect(InputSites::all()), {0, 1, 2, 3});
    }
  }
  Fixture fixture(kCases[0], 1);
  try {
    fixture.session->collect_statistics("block", 4, InputSites{}, fixture.context);
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kInvalidArgument);
    CHECK(std::string(error.what()).find("sites") != std::string::npos);
  }
}

TEST_CASE("infinite hidden states are an error that names the group") {
  Fixture fixture(kCases[1], 1);
  std::vector<float> huge = fixture.table;
  for (float& value : huge) value *= 3e38F;
  fixture.session->load_shard("huge", std::vector<TensorView>{test::view_of(TensorRole::kTokenEmbedding, kCases[1].architecture, huge)},
                              fixture.context);
  fixture.session->embed("huge", GroupTokens{9, 1, 4, {1, 2, 3, 4}}, fixture.context);
  for (const bool collect : {true, false}) {
    try {
      if (collect) {
        fixture.session->collect_statistics("block", 9, fixture.context);
      } else {
        fixture.session->propagate("block", 9, fixture.context);
      }
      FAIL("no error");
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kNonFinite);
      CHECK(std::string(error.what()).find("group 9") != std::string::npos);
      if (collect) CHECK(std::string(error.what()).find("attention-input") != std::string::npos);
    }
  }
}
