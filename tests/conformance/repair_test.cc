// Gram matrices and repairs of a session.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "backend_under_test.h"
#include "reference_block.h"
#include "secateur/backend.h"

using namespace secateur;

namespace {

const Architecture kArchitecture = {
    16, 24, 2, 1, 8, 20, 64, Normalization::kRms, 1e-6, PositionEncoding::kRotary, 10000.0, 0, FeedForward::kGatedSilu};
constexpr InputSite kSites[] = {InputSite::kAttentionInput, InputSite::kAttentionOutput, InputSite::kFeedForwardInput,
                                InputSite::kFeedForwardHidden};

struct Tensors {
  explicit Tensors(std::map<TensorRole, std::vector<float>> tensors)
      : values(std::move(tensors)), views(test::views_of(values, kArchitecture)) {}
  std::map<TensorRole, std::vector<float>> values;
  std::vector<TensorView> views;
};

Tensors embedding() {
  std::vector<float> values(20 * 16);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i * 7 % 13) / 13.0F - 0.4F;
  return Tensors({{TensorRole::kTokenEmbedding, values}});
}

GroupTokens group(std::uint32_t index) {
  const auto first = static_cast<std::int32_t>(index);
  return {index, 2, 5, {first, 2, 3, 9, 5, 6, first + 7, 8, 4, 1}};
}

// A session that holds the block and the hidden states of some groups.
std::unique_ptr<BackendSession> session_with(Backend& backend, const Tensors& block, std::initializer_list<std::uint32_t> groups) {
  std::unique_ptr<BackendSession> session = backend.open_session(kArchitecture, Compute::kF32);
  CallContext context;
  session->load_shard("embedding", embedding().views, context);
  session->load_shard("block", block.views, context);
  for (const std::uint32_t index : groups) session->embed("embedding", group(index), context);
  return session;
}

std::vector<float> gram_of(BackendSession& session, std::size_t columns, const std::vector<GramPart>& parts) {
  std::vector<std::span<const std::uint8_t>> sums;
  for (const GramPart& part : parts) sums.emplace_back(part.sums);
  CallContext context;
  return session.reduce_gram(columns, sums, context);
}

}  // namespace

TEST_CASE("Gram matrices do not depend on which sessions have which groups, and their diagonal is the sums of squares") {
  const std::unique_ptr<Backend> backend = test::open_backend(2, 1U << 28);
  const Tensors block(test::random_block(kArchitecture, false, 1));
  CallContext context;
  const std::unique_ptr<BackendSession> all = session_with(*backend, block, {0, 1, 2});
  const std::unique_ptr<BackendSession> first = session_with(*backend, block, {2, 0});
  const std::unique_ptr<BackendSession> second = session_with(*backend, block, {1});
  std::vector<std::vector<double>> squares(std::size(kSites));
  for (const std::uint32_t index : {0U, 1U, 2U}) {
    const std::vector<SiteStatistics> plain = all->collect_statistics("block", index, context);
    const std::vector<SiteStatistics> collected = all->collect_with_gram("block", index, InputSites::all(), InputSites::all(), context);
    REQUIRE(collected.size() == std::size(kSites));
    for (std::size_t i = 0; i < collected.size(); ++i) {
      CHECK(collected[i].sums_of_squares == plain[i].sums_of_squares);
      CHECK(collected[i].quality_inputs == plain[i].quality_inputs);
      squares[i].resize(collected[i].sums_of_squares.size());
      for (std::size_t column = 0; column < squares[i].size(); ++column) squares[i][column] += collected[i].sums_of_squares[column];
    }
    // A group counts once, however often it is collected.
    all->collect_with_gram("block", index, InputSites::all(), InputSites::all(), context);
  }
  for (const std::uint32_t index : {2U, 0U}) first->collect_with_gram("block", index, InputSites::all(), InputSites::all(), context);
  second->collect_with_gram("block", 1, InputSites::all(), InputSites::all(), context);

  for (std::size_t i = 0; i < std::size(kSites); ++i) {
    CAPTURE(name_of(kSites[i]));
    const std::size_t columns = squares[i].size();
    std::vector<GramPart> parts;
    parts.push_back(all->take_gram_sums("block", kSites[i]));
    CHECK(parts[0].groups == std::vector<std::uint32_t>{0, 1, 2});
    const std::vector<float> gram = gram_of(*all, columns, parts);
    for (std::size_t column = 0; column < columns; ++column) {
      CHECK(static_cast<double>(gram[column * columns + column]) == doctest::Approx(squares[i][column]).epsilon(1e-5));
    }
    std::vector<GramPart> others;
    others.push_back(second->take_gram_sums("block", kSites[i]));
    others.push_back(first->take_gram_sums("block", kSites[i]));
    CHECK(gram_of(*second, columns, others) == gram);
    // They are handed over once.
    CHECK(all->take_gram_sums("block", kSites[i]).groups.empty());
  }
}

TEST_CASE("sums belong to their block, and only wanted sites have some") {
  const std::unique_ptr<Backend> backend = test::open_backend(1, 1U << 28);
  const Tensors block(test::random_block(kArchitecture, false, 1));
  CallContext context;
  const std::unique_ptr<BackendSession> session = session_with(*backend, block, {0});
  const std::uint64_t used = backend->memory_used_bytes();
  session->collect_with_gram("block", 0, InputSites::all(), {InputSite::kAttentionOutput}, context);
  CHECK(session->take_gram_sums("block", InputSite::kAttentionInput).groups.empty());
  // A device's memory is taken in pieces that have room for them.
  if (test::is_cpu()) CHECK(backend->memory_used_bytes() > used);
  session->release_shard("block");
  session->load_shard("block", block.views, context);
  CHECK(session->take_gram_sums("block", InputSite::kAttentionOutput).groups.empty());
}

TEST_CASE("samples that are held out have sums of their own, and swaps by both make a projection's output better") {
  const std::unique_ptr<Backend> backend = test::open_backend(2, 1U << 28);
  const Tensors block(test::random_block(kArchitecture, false, 1));
  CallContext context;
  const std::unique_ptr<BackendSession> whole = session_with(*backend, block, {0, 1, 2});
  const std::unique_ptr<BackendSession> first = session_with(*backend, block, {2, 0});
  const std::unique_ptr<BackendSession> second = session_with(*backend, block, {1});
  const GramSites split{InputSites::all(), true};
  for (const std::uint32_t index : {0U, 1U, 2U}) whole->collect_with_gram("block", index, InputSites::all(), InputSites::all(), context);
  for (const std::uint32_t index : {2U, 0U}) first->collect_with_gram("block", index, InputSites::all(), split, 0, context);
  second->collect_with_gram("block", 1, InputSites::all(), split, 0, context);
  CHECK_THROWS_WITH_AS(second->collect_with_gram("block", 1, InputSites::all(), InputSites::all(), context),
                       doctest::Contains("samples out"), Error);

  const InputSite site = InputSite::kFeedForwardInput;
  const GramPart all = whole->take_gram_sums("block", site);
  CHECK(all.held_out.empty());
  const GramPart of_first = first->take_gram_sums("block", site);
  const GramPart of_second = second->take_gram_sums("block", site);
  CHECK(of_first.held_out != of_first.sums);
  const auto reduce = [&](std::vector<std::span<const std::uint8_t>> sums) { return first->reduce_gram(16, sums, context); };
  // However they are dealt out, all samples together are what they are without holding any out.
  CHECK(reduce({of_second.held_out, of_first.sums, of_first.held_out, of_second.sums}) == reduce({all.sums}));
  const std::vector<float> gram = reduce({of_first.sums, of_second.sums});
  const std::vector<float> held_out = reduce({of_first.held_out, of_second.held_out});

  const std::vector<std::uint8_t> mask(24 * 2, 0x55);
  RepairInput input;
  input.samples = 6;
  input.gram = gram;
  input.held_out_gram = held_out;
  input.mask = mask;
  const RepairedRows swapped = first->repair_rows("block", TensorRole::kUpWeight, input, {.swaps = 8}, context);
  CHECK(swapped.swaps > 0);
  CHECK(swapped.error_before < swapped.error_before_swaps);
  CHECK(swapped.error_after == swapped.error_before);
  CHECK(swapped.dropped_per_row == std::vector<std::int32_t>(24, 8));
}

TEST_CASE("the drift is how far the inputs and hidden states of a pruned model are from those of the dense one") {
  const std::unique_ptr<Backend> backend = test::open_backend(2, 1U << 28);
  const Tensors first(test::random_block(kArchitecture, false, 1));
  const Tensors second(test::random_block(kArchitecture, false, 2));
  // Of both blocks something is dropped: every second weight of a projection.
  const auto masked = [](const Tensors& block, TensorRole role) {
    std::map<TensorRole, std::vector<float>> values = block.values;
    for (std::size_t i = 0; i < values[role].size(); i += 2) values[role][i] = 0;
    return values;
  };
  Workload workload;
  const Tensors tokens = embedding();
  workload.embedding = {tokens.views.begin(), tokens.views.end()};
  workload.block = {first.views.begin(), first.views.end()};
  workload.groups = 2;
  workload.samples_per_group = 2;
  workload.sequence_length = 5;
  workload.allocation_samples = 4;
  workload.repair = Repair::kFit;
  workload.sparsity = 0.5;
  workload.dense_targets = true;
  CallContext context;
  const std::unique_ptr<BackendSession> session = backend->open_session(kArchitecture, Compute::kF32, workload);
  session->load_shard("embedding", tokens.views, context);
  session->load_shard("first", first.views, context);
  session->load_shard("second", second.views, context);
  for (const std::uint32_t index : {0U, 1U}) {
    session->embed("embedding", group(index), context);
    session->collect_with_gram("first", index, InputSites::all(), InputSites::all(), context);
  }
  // Nothing is dropped yet.
  for (const InputSite site : kSites) {
    const GramPart part = session->take_gram_sums("first", site);
    CHECK(!part.drift.empty());
    CHECK(std::ranges::all_of(part.drift, [](std::uint8_t byte) { return byte == 0; }));
  }
  const std::vector<std::uint8_t> mask(24 * 2, 0x55);
  session->apply_mask("first", TensorRole::kUpWeight, mask, context);
  session->apply_mask("second", TensorRole::kOutputWeight, std::span(mask).first(16 * 2), context);
  for (const std::uint32_t index : {0U, 1U}) {
    session->propagate("first", index, context);
    session->propagate_dense("first", index, context);
    session->collect_with_gram("second", index, InputSites::all(), InputSites::all(), context);
  }

  struct Stream {
    std::vector<test::Values> sites;
    // What the outputs of the attention and of the feed-forward half are added to.
    test::Values entered;
    test::Values half;
  };
  const auto run = [&](const std::map<TensorRole, std::vector<float>>& before, const std::map<TensorRole, std::vector<float>>& block,
                       std::size_t sample) {
    const GroupTokens of_group = group(static_cast<std::uint32_t>(sample / 2));
    test::Values hidden;
    for (std::size_t token = 0; token < 5; ++token) {
      const auto id = static_cast<std::size_t>(of_group.ids[sample % 2 * 5 + token]);
      const std::vector<float>& table = tokens.values.at(TensorRole::kTokenEmbedding);
      for (std::size_t i = 0; i < 16; ++i) hidden.push_back(static_cast<double>(table[id * 16 + i]));
    }
    Stream stream;
    stream.entered = test::run_reference_block(kArchitecture, before, hidden, 5).output;
    stream.sites = test::run_reference_block(kArchitecture, block, stream.entered, 5).sites;
    stream.half = test::project(stream.sites[1], 5, block.at(TensorRole::kOutputWeight), 16, nullptr);
    for (std::size_t i = 0; i < stream.half.size(); ++i) stream.half[i] += stream.entered[i];
    return stream;
  };
  std::map<InputSite, std::vector<double>> expected;
  for (std::size_t sample = 0; sample < 4; ++sample) {
    const Stream dense = run(first.values, second.values, sample);
    const Stream pruned = run(masked(first, TensorRole::kUpWeight), masked(second, TensorRole::kOutputWeight), sample);
    for (std::size_t index = 0; index < std::size(kSites); ++index) {
      const std::size_t columns = pruned.sites[index].size() / 5;
      const bool added = index == 1 || index == 3;
      std::vector<double>& sums = expected[kSites[index]];
      sums.resize((columns + (added ? 16 : 0)) * columns);
      const test::Values& ahead = index == 1 ? dense.entered : dense.half;
      const test::Values& behind = index == 1 ? pruned.entered : pruned.half;
      for (std::size_t i = 0; i < sums.size(); ++i) {
        const std::size_t row = i / columns;
        for (std::size_t token = 0; token < 5; ++token) {
          const double moved = row < columns ? dense.sites[index][token * columns + row] - pruned.sites[index][token * columns + row]
                                             : ahead[token * 16 + row - columns] - behind[token * 16 + row - columns];
          sums[i] += moved * pruned.sites[index][token * columns + i % columns];
        }
      }
    }
  }
  for (const auto& [site, sums] : expected) {
    CAPTURE(name_of(site));
    const GramPart part = session->take_gram_sums("second", site);
    const std::size_t columns = site == InputSite::kFeedForwardHidden ? 24 : 16;
    const std::span<const std::uint8_t> parts[] = {part.drift};
    const std::vector<float> drift = session->reduce_gram(columns, sums.size() / columns, parts, context);
    REQUIRE(drift.size() == sums.size());
    double largest = 0;
    for (const double sum : sums) largest = std::max(largest, std::abs(sum));
    CHECK(largest > 0);
    for (std::size_t i = 0; i < sums.size(); ++i) CHECK(std::abs(static_cast<double>(drift[i]) - sums[i]) <= 1e-5 * largest);
  }
}

TEST_CASE("hidden states of the dense model leave a session and come back with those of the pruned one") {
  const std::unique_ptr<Backend> backend = test::open_backend(1, 1U << 28);
  const Tensors block(test::random_block(kArchitecture, false, 1));
  const Tensors tokens = embedding();
  Workload workload;
  workload.embedding = {tokens.views.begin(), tokens.views.end()};
  workload.block = {block.views.begin(), block.views.end()};
  workload.groups = 1;
  workload.samples_per_group = 2;
  workload.sequence_length = 5;
  workload.allocation_samples = 2;
  workload.repair = Repair::kFit;
  workload.sparsity = 0.5;
  workload.dense_targets = true;
  CallContext context;
  const auto open = [&] {
    std::unique_ptr<BackendSession> session = backend->open_session(kArchitecture, Compute::kF32, workload);
    session->load_shard("block", block.views, context);
    return session;
  };
  const std::unique_ptr<BackendSession> first = open();
  const std::unique_ptr<BackendSession> second = open();
  first->load_shard("embedding", tokens.views, context);
  first->embed("embedding", group(0), context);
  const std::vector<std::uint8_t> mask(24 * 2, 0x55);
  for (const auto& session : {first.get(), second.get()}) session->apply_mask("block", TensorRole::kUpWeight, mask, context);
  first->propagate("block", 0, context);
  const std::vector<std::uint8_t> saved = first->save_hidden_states(0, context);
  REQUIRE(saved.size() == 2 * 2 * 5 * 16 * sizeof(float));
  CHECK(!std::equal(saved.begin(), saved.begin() + 640, saved.begin() + 640));
  second->restore_hidden_states(group(0), saved, context);
  CHECK(second->save_hidden_states(0, context) == saved);
  for (const auto& session : {first.get(), second.get()}) session->propagate_dense("block", 0, context);
  CHECK(first->save_hidden_states(0, context) == second->save_hidden_states(0, context));
  CHECK_THROWS_WITH_AS(second->restore_hidden_states(group(0), std::span(saved).first(640), context), doctest::Contains("bytes"), Error);
}

TEST_CASE("a session without dense targets keeps no hidden states of the dense model") {
  const std::unique_ptr<Backend> backend = test::open_backend(1, 1U << 28);
  const Tensors block(test::random_block(kArchitecture, false, 1));
  CallContext context;
  const std::unique_ptr<BackendSession> session = session_with(*backend, block, {0});
  CHECK_THROWS_WITH_AS(session->propagate_dense("block", 0, context), doctest::Contains("dense model"), Error);
  session->collect_with_gram("block", 0, InputSites::all(), InputSites::all(), context);
  CHECK(session->take_gram_sums("block", InputSite::kAttentionInput).drift.empty());
}

TEST_CASE("repairs agree with those of the CPU, and are the same bits whenever they are made") {
  // Columns of more than one block of SparseGPT.
  const Architecture architecture = {
      24, 132, 2, 1, 8, 20, 64, Normalization::kRms, 1e-6, PositionEncoding::kRotary, 10000.0, 0, FeedForward::kGatedSilu};
  const std::map<TensorRole, std::vector<float>> values = test::random_block(architecture, false, 3);
  const std::vector<TensorView> views = test::views_of(values, architecture);
  const std::size_t rows = 24;
  const std::size_t columns = 132;
  const std::size_t mask_bytes = (columns + 7) / 8;
  // Σ yxᵀ of so many tokens, whose inputs are not independent; one input is always 0.
  std::uint32_t state = 1;
  const auto random = [&] {
    state = state * 1664525U + 1013904223U;
    return static_cast<double>(state >> 8) / (1U << 24) - 0.5;
  };
  const auto products_of = [](const std::vector<double>& left, const std::vector<double>& right, std::size_t height, std::size_t width) {
    std::vector<float> products(height * width);
    for (std::size_t i = 0; i < products.size(); ++i) {
      double sum = 0;
      for (std::size_t token = 0; token < left.size() / height; ++token)
        sum += left[token * height + i / width] * right[token * width + i % width];
      products[i] = static_cast<float>(sum);
    }
    return products;
  };
  const auto inputs_of = [&](std::size_t tokens) {
    std::vector<double> inputs(tokens * columns);
    for (std::size_t i = 0; i < inputs.size(); ++i) inputs[i] = random() + (i % columns > 0 ? 0.7 * inputs[i - 1] : 0);
    for (std::size_t token = 0; token < tokens; ++token) inputs[token * columns + 5] = 0;
    return inputs;
  };
  const std::vector<double> fitted_inputs = inputs_of(160);
  const std::vector<double> held_out_inputs = inputs_of(60);
  std::vector<double> moved = fitted_inputs;
  for (double& value : moved) value = 0.1 * random();
  std::vector<double> moved_states(160 * rows);
  for (double& value : moved_states) value = 0.2 * random();
  const std::vector<float> gram = products_of(fitted_inputs, fitted_inputs, columns, columns);
  const std::vector<float> held_out = products_of(held_out_inputs, held_out_inputs, columns, columns);
  std::vector<float> drift = products_of(moved, fitted_inputs, columns, columns);
  const std::vector<float> hidden_drift = products_of(moved_states, fitted_inputs, rows, columns);
  drift.insert(drift.end(), hidden_drift.begin(), hidden_drift.end());
  std::vector<std::uint8_t> mask(rows * mask_bytes, 0);
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t column = row % 3; column < columns; column += 2) {
      std::uint8_t& bits = mask[row * mask_bytes + column / 8];
      bits = static_cast<std::uint8_t>(bits | 1U << column % 8);
    }
  }

  struct Case {
    std::string name;
    RepairOptions options;
    bool drift;
    ElementType stored;
  };
  const Case cases[] = {
      {"swaps", {.swaps = 20}, false, ElementType::kF32},
      {"swaps and a fit", {.method = Repair::kFit, .iterations = 6, .swaps = 20}, false, ElementType::kBF16},
      {"a fit", {.method = Repair::kFit, .iterations = 6}, false, ElementType::kF32},
      {"a fit towards the dense model", {.method = Repair::kFit, .iterations = 6}, true, ElementType::kF16},
      {"ADMM", {.method = Repair::kAdmm, .iterations = 6}, false, ElementType::kF32},
      {"ADMM towards the dense model", {.method = Repair::kAdmm, .iterations = 6}, true, ElementType::kBF16},
      {"ADMM across rows", {.method = Repair::kAdmm, .iterations = 6, .across_rows = true}, false, ElementType::kF32},
      {"SparseGPT", {.method = Repair::kSparseGpt}, false, ElementType::kF32},
      {"SparseGPT across rows", {.method = Repair::kSparseGpt, .across_rows = true}, false, ElementType::kF32},
  };
  const std::unique_ptr<Backend> cpu = create_cpu_backend(2, 1U << 28);
  const std::unique_ptr<Backend> tested = test::open_backend(1, 1U << 28);
  CallContext context;
  const auto session_of = [&](Backend& backend) {
    std::unique_ptr<BackendSession> session = backend.open_session(architecture, Compute::kF32);
    session->load_shard("block", views, context);
    return session;
  };
  const std::unique_ptr<BackendSession> reference = session_of(*cpu);
  const std::unique_ptr<BackendSession> session = session_of(*tested);
  for (const Case& of_case : cases) {
    CAPTURE(of_case.name);
    RepairInput input;
    input.samples = 4;
    input.gram = gram;
    if (of_case.options.swaps > 0) input.held_out_gram = held_out;
    if (of_case.drift) input.drift = drift;
    input.mask = mask;
    input.stored = of_case.stored;
    const RepairedRows expected = reference->repair_rows("block", TensorRole::kDownWeight, input, of_case.options, context);
    const RepairedRows actual = session->repair_rows("block", TensorRole::kDownWeight, input, of_case.options, context);
    CHECK(actual.error_before_swaps == doctest::Approx(expected.error_before_swaps).epsilon(1e-3));
    CHECK(actual.error_before == doctest::Approx(expected.error_before).epsilon(1e-2));
    CHECK(actual.error_after == doctest::Approx(expected.error_after).epsilon(1e-2));
    CHECK(actual.dropped == expected.dropped);
    CHECK(actual.damping == expected.damping);
    CHECK(actual.dropped_per_row.size() == rows);
    // Rounding may tip choices that are nearly equal.
    std::size_t differing = 0;
    for (std::size_t i = 0; i < mask.size(); ++i)
      differing += static_cast<std::size_t>(std::popcount(static_cast<unsigned>(actual.mask[i] ^ expected.mask[i])));
    CHECK(differing <= expected.dropped / 100);
    REQUIRE(actual.weights.size() == expected.weights.size());
    const RepairedRows again = session->repair_rows("block", TensorRole::kDownWeight, input, of_case.options, context);
    CHECK(again.weights == actual.weights);
    CHECK(again.mask == actual.mask);
    CHECK(again.error_after == actual.error_after);
  }
}

TEST_CASE("a repaired projection is multiplied as it was stored") {
  const std::unique_ptr<Backend> backend = test::open_backend(2, 1U << 28);
  Tensors block(test::random_block(kArchitecture, false, 1));
  CallContext context;
  const std::unique_ptr<BackendSession> session = session_with(*backend, block, {0, 1});
  for (const std::uint32_t index : {0U, 1U}) session->collect_with_gram("block", index, InputSites::all(), InputSites::all(), context);
  std::vector<GramPart> parts;
  parts.push_back(session->take_gram_sums("block", InputSite::kFeedForwardInput));
  const std::vector<float> gram = gram_of(*session, 16, parts);
  // Every second weight goes.
  std::vector<std::uint8_t> mask(24 * 2, 0x55);
  RepairInput input;
  input.samples = 4;
  input.gram = gram;
  input.mask = mask;
  const RepairedRows repaired = session->repair_rows("block", TensorRole::kUpWeight, input, {.method = Repair::kFit}, context);
  CHECK(repaired.mask == mask);
  CHECK(repaired.error_after < repaired.error_before);
  session->replace_weights("block", TensorRole::kUpWeight, ElementType::kF32, repaired.weights, context);
  CHECK_THROWS_WITH_AS(session->replace_weights("block", TensorRole::kUpWeight, ElementType::kBF16, repaired.weights, context),
                       doctest::Contains("bytes"), Error);

  std::map<TensorRole, std::vector<float>> values = block.values;
  std::copy_n(reinterpret_cast<const float*>(repaired.weights.data()), 24 * 16, values.at(TensorRole::kUpWeight).data());
  const Tensors stored(values);
  const std::unique_ptr<BackendSession> other = session_with(*backend, stored, {0});
  session->propagate("block", 0, context);
  other->propagate("block", 0, context);
  const std::vector<SiteStatistics> expected = other->collect_statistics("block", 0, context);
  const std::vector<SiteStatistics> actual = session->collect_statistics("block", 0, context);
  for (std::size_t i = 0; i < expected.size(); ++i) CHECK(actual[i].quality_inputs == expected[i].quality_inputs);
}
