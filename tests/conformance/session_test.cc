#include <doctest/doctest.h>

#include <atomic>
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

struct Tensors {
  explicit Tensors(std::map<TensorRole, std::vector<float>> tensors)
      : values(std::move(tensors)), views(test::views_of(values, kArchitecture)) {}
  std::map<TensorRole, std::vector<float>> values;
  std::vector<TensorView> views;
};

Tensors block() { return Tensors(test::random_block(kArchitecture, false, 1)); }
Tensors embedding() { return Tensors({{TensorRole::kTokenEmbedding, std::vector<float>(20 * 16, 0.25F)}}); }
GroupTokens group() { return {0, 2, 3, {1, 2, 3, 4, 5, 6}}; }

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

TEST_CASE("shards that do not fit the architecture are refused by name") {
  const std::unique_ptr<Backend> backend = test::open_backend(2, 1U << 28);
  const std::unique_ptr<BackendSession> session = backend->open_session(kArchitecture, Compute::kF32);
  CallContext context;
  const auto load = [&](std::vector<TensorView> views) { session->load_shard("x", views, context); };
  const Tensors whole = block();
  const auto index_of = [&](TensorRole role) {
    for (std::size_t i = 0; i < whole.views.size(); ++i) {
      if (whole.views[i].role == role) return i;
    }
    return whole.views.size();
  };

  check_error(ErrorCode::kInvalidArgument, "neither", [&] { load({}); });
  std::vector<TensorView> views = whole.views;
  views.erase(views.begin() + static_cast<std::ptrdiff_t>(index_of(TensorRole::kDownWeight)));
  check_error(ErrorCode::kInvalidArgument, "no tensor down-weight", [&] { load(views); });
  views = whole.views;
  views.push_back(views[index_of(TensorRole::kUpWeight)]);
  check_error(ErrorCode::kInvalidArgument, "two tensors up-weight", [&] { load(views); });
  views = whole.views;
  views[index_of(TensorRole::kKeyWeight)].shape = {16, 8};
  check_error(ErrorCode::kInvalidArgument, "key-weight has the shape [16, 8]", [&] { load(views); });
  views = whole.views;
  views[index_of(TensorRole::kKeyWeight)].element_type = ElementType::kF16;
  check_error(ErrorCode::kInvalidArgument, "bytes", [&] { load(views); });
  views = whole.views;
  views.push_back(embedding().views[0]);
  check_error(ErrorCode::kInvalidArgument, "belong", [&] { load(views); });
  load(whole.views);
  check_error(ErrorCode::kFailedPrecondition, "already", [&] { load(whole.views); });
}

TEST_CASE("architectures that contradict themselves are refused by field") {
  const std::unique_ptr<Backend> backend = test::open_backend(1, 1U << 20);
  const auto open = [&](auto change) {
    Architecture architecture = kArchitecture;
    change(architecture);
    backend->open_session(architecture, Compute::kF32);
  };
  check_error(ErrorCode::kInvalidArgument, "hiddenSize", [&] { open([](Architecture& a) { a.hidden_size = 0; }); });
  check_error(ErrorCode::kInvalidArgument, "multiple",
              [&] { open([](Architecture& a) { a.attention_heads = 3, a.key_value_heads = 2; }); });
  check_error(ErrorCode::kInvalidArgument, "even", [&] { open([](Architecture& a) { a.head_dimension = 7; }); });
  check_error(ErrorCode::kInvalidArgument, "Epsilon", [&] { open([](Architecture& a) { a.normalization_epsilon = 0; }); });
  check_error(ErrorCode::kInvalidArgument, "vocabularySize", [&] { open([](Architecture& a) { a.vocabulary_size = SIZE_MAX; }); });
  check_error(ErrorCode::kInvalidArgument, "Epsilon", [&] { open([](Architecture& a) { a.normalization_epsilon = INFINITY; }); });
  check_error(ErrorCode::kInvalidArgument, "rotaryBase", [&] { open([](Architecture& a) { a.rotary_base = INFINITY; }); });
  check_error(ErrorCode::kInvalidArgument, "embeddingSize", [&] { open([](Architecture& a) { a.embedding_size = SIZE_MAX; }); });
  check_error(ErrorCode::kInvalidArgument, "factor of rotaryScaling",
              [&] { open([](Architecture& a) { a.rotary_scaling = RotaryScaling::kLinear, a.rotary_factor = 0; }); });
  check_error(ErrorCode::kInvalidArgument, "highFrequencyFactor", [&] {
    open([](Architecture& a) {
      a.rotary_scaling = RotaryScaling::kLlama3;
      a.original_positions = 32;
      a.low_frequency_factor = a.high_frequency_factor = 2;
    });
  });
  if (test::is_cpu()) check_error(ErrorCode::kInvalidArgument, "threads", [] { create_cpu_backend(0, 1U << 20); });
}

TEST_CASE("architectures whose sizes would overflow are refused") {
  const std::unique_ptr<Backend> backend = test::open_backend(1, 1U << 20);
  constexpr std::size_t kLarge = std::size_t{1} << 24;
  Architecture architecture = kArchitecture;
  // [2^48, 2^16] has 2^64 elements: none, counted in 64 bits.
  architecture.hidden_size = std::size_t{1} << 16;
  architecture.attention_heads = kLarge;
  architecture.key_value_heads = kLarge;
  architecture.head_dimension = kLarge;
  check_error(ErrorCode::kInvalidArgument, "attentionHeads x headDimension", [&] { backend->open_session(architecture, Compute::kF32); });
  // A table of 2^40 + 1 positions that looks like one of a single position.
  for (const std::size_t offset : {(std::size_t{1} << 40) - 5, SIZE_MAX, kLarge + 1}) {
    architecture = kArchitecture;
    architecture.hidden_size = kLarge;
    architecture.maximum_positions = 6;
    architecture.learned_position_offset = offset;
    check_error(ErrorCode::kInvalidArgument, "learnedPositionOffset", [&] { backend->open_session(architecture, Compute::kF32); });
  }
}

TEST_CASE("sessions of one backend do not see each other") {
  const std::unique_ptr<Backend> backend = test::open_backend(2, 1U << 28);
  Tensors ones = block();
  Tensors others(test::random_block(kArchitecture, false, 2));
  const Tensors table = embedding();
  CallContext context;
  const auto open = [&](const Tensors& tensors) {
    std::unique_ptr<BackendSession> session = backend->open_session(kArchitecture, Compute::kF32);
    session->load_shard("embedding", table.views, context);
    session->load_shard("block", tensors.views, context);
    session->embed("embedding", group(), context);
    return session;
  };
  const auto quality_inputs = [&](BackendSession& session) { return session.collect_statistics("block", 0, context)[3].quality_inputs; };
  const std::vector<float> alone = quality_inputs(*open(ones));
  const std::unique_ptr<BackendSession> first = open(ones);
  // Sessions keep their work space.
  CHECK(quality_inputs(*first) == alone);
  const std::uint64_t used = backend->memory_used_bytes();
  {
    const std::unique_ptr<BackendSession> second = open(others);
    CHECK(quality_inputs(*second) != alone);
    CHECK(quality_inputs(*first) == alone);
    second->propagate("block", 0, context);
    second->release_shard("block");
    second->release_group(0);
    CHECK(quality_inputs(*first) == alone);
  }
  CHECK(quality_inputs(*first) == alone);
  CHECK(backend->memory_used_bytes() == used);
}

TEST_CASE("a group goes on in another session as it would have where it was") {
  const std::unique_ptr<Backend> backend = test::open_backend(2, 1U << 28);
  CallContext context;
  const Tensors dense = block();
  const Tensors pruned(test::random_block(kArchitecture, false, 2));
  const Tensors table = embedding();
  const auto compare = [&](Precision precision, const Workload& workload, std::size_t value_bytes) {
    const auto open = [&] {
      std::unique_ptr<BackendSession> session = backend->open_session(kArchitecture, precision, workload);
      session->load_shard("dense", dense.views, context);
      session->load_shard("pruned", pruned.views, context);
      return session;
    };
    const auto move = [&](BackendSession& session) {
      if (workload.dense_targets) session.propagate_dense("dense", 0, context);
      session.propagate("pruned", 0, context);
    };
    const std::unique_ptr<BackendSession> first = open();
    first->load_shard("embedding", table.views, context);
    first->embed("embedding", group(), context);
    move(*first);
    const std::vector<std::uint8_t> saved = first->save_hidden_states(0, context);
    CHECK(saved.size() == group().ids.size() * kArchitecture.hidden_size * value_bytes);
    const std::unique_ptr<BackendSession> second = open();
    second->restore_hidden_states(group(), saved, context);
    CHECK(second->save_hidden_states(0, context) == saved);
    move(*first);
    move(*second);
    CHECK(first->save_hidden_states(0, context) != saved);
    CHECK(second->save_hidden_states(0, context) == first->save_hidden_states(0, context));

    // Replaces what the group was; the size is checked before.
    check_error(ErrorCode::kInvalidArgument, "bytes",
                [&] { second->restore_hidden_states(group(), std::span(saved).first(saved.size() - 1), context); });
    CHECK(second->save_hidden_states(0, context) == first->save_hidden_states(0, context));
    second->restore_hidden_states(group(), saved, context);
    CHECK(second->save_hidden_states(0, context) == saved);
    check_error(ErrorCode::kFailedPrecondition, "Group 3", [&] { second->save_hidden_states(3, context); });
  };
  compare(Compute::kF32, {}, sizeof(float));
  compare({Compute::kF32, secateur::HiddenStates::kBF16}, {}, sizeof(std::uint16_t));
  if (!test::is_cpu()) return;
  Workload both;
  both.dense_targets = true;
  compare(Compute::kF32, both, 2 * sizeof(float));
}

TEST_CASE("memory of a group that is gone is not taken by a shard while its hidden states are still rounded") {
  constexpr std::size_t kManySamples = 64;
  CallContext context;
  const auto collect = [&](bool waits) {
    const std::unique_ptr<Backend> backend = test::open_backend(1, 1U << 28);
    const Precision precision(Compute::kF32, HiddenStates::kBF16);
    const std::unique_ptr<BackendSession> session = backend->open_session(kArchitecture, precision);
    session->load_shard("embedding", embedding().views, context);
    session->embed("embedding", {0, kManySamples, 16, std::vector<std::int32_t>(kManySamples * 16, 3)}, context);
    session->embed("embedding", {1, 2, 3, group().ids}, context);
    session->release_shard("embedding");
    session->load_shard("block", block().views, context);
    session->propagate("block", 0, context);
    if (waits) session->save_hidden_states(0, context);
    session->release_group(0);
    session->load_shard("next", Tensors(test::random_block(kArchitecture, false, 2)).views, context);
    std::vector<std::vector<double>> squares;
    for (const SiteStatistics& site : session->collect_statistics("next", 1, context)) squares.push_back(site.sums_of_squares);
    return squares;
  };
  CHECK(collect(false) == collect(true));
}

TEST_CASE("a group for which there is no memory is not there, in part either") {
  CallContext context;
  const GroupTokens tokens = {0, 64, 16, std::vector<std::int32_t>(64 * 16, 3)};
  const std::size_t values = tokens.ids.size() * kArchitecture.hidden_size;
  // For bfloat16, but not for float32 besides.
  const std::unique_ptr<Backend> backend = test::open_backend(1, values * 4);
  const std::unique_ptr<BackendSession> session = backend->open_session(kArchitecture, {Compute::kF32, HiddenStates::kBF16});
  session->load_shard("embedding", embedding().views, context);
  try {
    session->embed("embedding", tokens, context);
    // A CPU needs no more.
    CHECK(test::is_cpu());
  } catch (const OutOfMemory&) {
    check_error(ErrorCode::kFailedPrecondition, "embed it first", [&] { session->save_hidden_states(0, context); });
  }
}

TEST_CASE("a propagation that finds no memory leaves the hidden states as they are") {
  CallContext context;
  const auto prepare = [&](Backend& backend) {
    std::unique_ptr<BackendSession> session = backend.open_session(kArchitecture, Compute::kF32);
    session->load_shard("embedding", embedding().views, context);
    session->load_shard("block", block().views, context);
    session->embed("embedding", group(), context);
    return session;
  };
  // The most it takes so far.
  std::uint64_t held = 0;
  {
    const std::unique_ptr<Backend> backend = test::open_backend(1, 1U << 28);
    const std::unique_ptr<BackendSession> session = prepare(*backend);
    held = backend->memory_peak_bytes();
  }
  // On a GPU for the tables of positions, which are taken first.
  const std::uint64_t room = test::is_cpu() ? 200 : 600;
  const std::unique_ptr<Backend> backend = test::open_backend(1, held + room);
  const std::unique_ptr<BackendSession> session = prepare(*backend);
  for (int round = 0; round < 2; ++round) {
    check_error(ErrorCode::kResourceExhausted, test::is_cpu() ? "of a group" : "work space",
                [&] { session->propagate("block", 0, context); });
  }
}

TEST_CASE("what is not there or does not fit is named") {
  const std::unique_ptr<Backend> backend = test::open_backend(2, 1U << 28);
  const std::unique_ptr<BackendSession> session = backend->open_session(kArchitecture, Compute::kF32);
  CallContext context;
  session->load_shard("block", block().views, context);
  session->load_shard("embedding", embedding().views, context);
  check_error(ErrorCode::kFailedPrecondition, "No shard other", [&] { session->propagate("other", 0, context); });
  check_error(ErrorCode::kFailedPrecondition, "not a block", [&] { session->propagate("embedding", 0, context); });
  check_error(ErrorCode::kFailedPrecondition, "embed it first", [&] { session->propagate("block", 0, context); });
  const auto embed = [&](auto change) {
    GroupTokens tokens = group();
    change(tokens);
    session->embed("embedding", tokens, context);
  };
  check_error(ErrorCode::kInvalidArgument, "token id 20 at 4", [&] { embed([](GroupTokens& tokens) { tokens.ids[4] = 20; }); });
  check_error(ErrorCode::kInvalidArgument, "token id -1", [&] { embed([](GroupTokens& tokens) { tokens.ids[0] = -1; }); });
  check_error(ErrorCode::kInvalidArgument, "samples x", [&] { embed([](GroupTokens& tokens) { tokens.ids.pop_back(); }); });
  check_error(ErrorCode::kInvalidArgument, "64 tokens", [&] {
    embed([](GroupTokens& tokens) { tokens = {0, 1, 65, std::vector<std::int32_t>(65, 1)}; });
  });
  embed([](GroupTokens&) {});
  check_error(ErrorCode::kInvalidArgument, "mask",
              [&] { session->apply_mask("block", TensorRole::kUpWeight, std::vector<std::uint8_t>(5), context); });
  check_error(ErrorCode::kInvalidArgument, "not a projection",
              [&] { session->apply_mask("block", TensorRole::kAttentionNormWeight, std::vector<std::uint8_t>(2), context); });
  session->release_group(0);
  check_error(ErrorCode::kFailedPrecondition, "embed it first", [&] { session->propagate("block", 0, context); });
}

TEST_CASE("the budget is kept and given back") {
  const std::unique_ptr<Backend> backend = test::open_backend(1, 20'000);
  {
    const std::unique_ptr<BackendSession> session = backend->open_session(kArchitecture, Compute::kF32);
    CallContext context;
    session->load_shard("block", block().views, context);
    const std::uint64_t used = backend->memory_used_bytes();
    CHECK(used > 7'000);
    try {
      session->load_shard("second", block().views, context);
      session->load_shard("third", block().views, context);
      FAIL("no error");
    } catch (const OutOfMemory& error) {
      CHECK(error.code() == ErrorCode::kResourceExhausted);
      CHECK(error.needed_bytes() > error.available_bytes());
    }
    session->release_shard("second");
    session->release_shard("third");
    if (test::is_cpu()) {
      // The memory of a block's projections stays for the next one, but not for another shard, and of no more than one.
      CHECK(backend->memory_used_bytes() > used);
      session->load_shard("next", block().views, context);
      CHECK(backend->memory_used_bytes() == 2 * used);
      session->release_shard("next");
      session->release_shard("block");
      CHECK(backend->memory_used_bytes() <= used);
      session->load_shard("embedding", embedding().views, context);
      session->release_shard("embedding");
      CHECK(backend->memory_used_bytes() == 0);
    } else {
      CHECK(backend->memory_used_bytes() == used);
    }
  }
  CHECK(backend->memory_used_bytes() == 0);
}

TEST_CASE("a cancelled call stops, and its hidden states are gone rather than half done") {
  const std::unique_ptr<Backend> backend = test::open_backend(2, 1U << 28);
  const std::unique_ptr<BackendSession> session = backend->open_session(kArchitecture, Compute::kF32);
  std::atomic<bool> cancelled = false;
  CallContext context(&cancelled);
  session->load_shard("block", block().views, context);
  session->load_shard("embedding", embedding().views, context);
  session->embed("embedding", group(), context);
  session->propagate("block", 0, context);
  cancelled = true;
  check_error(ErrorCode::kCancelled, "cancelled", [&] { session->propagate("block", 0, context); });
  cancelled = false;
  check_error(ErrorCode::kFailedPrecondition, "embed it first", [&] { session->propagate("block", 0, context); });
}

TEST_CASE("allocation works on the weights of the session and leaves no memory behind") {
  const std::unique_ptr<Backend> backend = test::open_backend(2, 1U << 28);
  const std::unique_ptr<BackendSession> session = backend->open_session(kArchitecture, Compute::kF32);
  CallContext context;
  Tensors tensors = block();
  session->load_shard("block", tensors.views, context);
  const std::uint64_t used = backend->memory_used_bytes();
  std::vector<float> mean_squares(16, 1.0F);
  std::vector<float> quality_inputs(5 * 16);
  for (std::size_t i = 0; i < quality_inputs.size(); ++i) quality_inputs[i] = static_cast<float>(i % 7) - 3.0F;
  AllocationInput input;
  input.samples = 5;
  input.mean_squares = mean_squares;
  input.quality_inputs = quality_inputs;
  input.target_sparsity = 0.5;
  const AllocatedRows allocated = session->allocate_rows("block", TensorRole::kUpWeight, input, {}, context);
  input.rows = 24;
  input.columns = 16;
  input.weights = tensors.values.at(TensorRole::kUpWeight);
  const AllocatedRows direct = backend->allocate_matrix(input, {}, context);
  CHECK(allocated.mask == direct.mask);
  CHECK(allocated.dropped_per_row == direct.dropped_per_row);
  CHECK(allocated.dropped > 0);
  CHECK(backend->memory_used_bytes() == used);
}

TEST_CASE("a session that cannot compute as it is asked to is not opened, and told what can") {
  for (const Compute compute : {Compute::kBF16, Compute::kF16}) {
    const std::string reason = test::why_no(compute);
    if (reason.empty()) continue;
    const std::unique_ptr<Backend> backend = test::open_backend(1, 1U << 26);
    check_error(ErrorCode::kFailedPrecondition, reason, [&] { backend->open_session(kArchitecture, compute); });
    check_error(ErrorCode::kFailedPrecondition, "Use --compute f32", [&] { backend->open_session(kArchitecture, compute); });
  }
}

TEST_CASE("the speed of products is measured on the CPU, and leaves nothing behind") {
  const std::unique_ptr<Backend> backend = test::open_backend(2, 1U << 26);
  const std::uint64_t used = backend->memory_used_bytes();
  CallContext context;
  for (const Compute compute : {Compute::kF32, Compute::kBF16, Compute::kF16}) {
    const bool offered = test::is_cpu() && test::why_no(compute).empty();
    const double speed = backend->measure_product_speed(compute, context);
    CHECK((offered ? speed > 1e6 : speed == 0));
    CHECK(backend->memory_used_bytes() == used);
  }
  if (!test::is_cpu()) return;
  std::atomic<bool> cancelled = true;
  CallContext cancelling(&cancelled);
  check_error(ErrorCode::kCancelled, "cancelled", [&] { backend->measure_product_speed(Compute::kF32, cancelling); });
}
