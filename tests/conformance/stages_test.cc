// Jobs in stages run a block several times over the same hidden states. Sessions may go on from where the run before ended, which shows in
// nothing but the time it takes.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "backend_under_test.h"
#include "reference_block.h"
#include "secateur/backend.h"

using namespace secateur;

namespace {

constexpr std::size_t kSamples = 2;
constexpr std::size_t kTokens = 70;
constexpr std::uint32_t kGroups = 2;
constexpr std::size_t kVocabulary = 50;

// A query for each of four heads; keys and values for two of them.
Architecture gated(std::size_t hidden, std::size_t head_dimension) {
  return {hidden,
          40,
          4,
          2,
          head_dimension,
          kVocabulary,
          128,
          Normalization::kRms,
          1e-6,
          PositionEncoding::kRotary,
          10000.0,
          0,
          FeedForward::kGatedSilu};
}

Architecture normalised_afterwards() {
  Architecture architecture = {
      24, 40, 4, 4, 6, kVocabulary, 128, Normalization::kLayer, 1e-5, PositionEncoding::kLearned, 0.0, 2, FeedForward::kRelu};
  architecture.post_normalization = true;
  architecture.final_normalization = false;
  return architecture;
}

struct Job {
  std::string name;
  Architecture architecture;
  Precision precision = Compute::kF32;
  bool dense_targets = false;
};

const Job kJobs[] = {
    {"gated", gated(24, 6)},
    {"dense targets", gated(24, 6), Compute::kF32, true},
    {"normalised afterwards, dense targets", normalised_afterwards(), Compute::kF32, true},
    {"hidden states in bf16", gated(24, 6), {Compute::kF32, HiddenStates::kBF16}},
    {"products in bf16", gated(24, 6), Compute::kBF16, true},
    {"heads wider than the hidden states", gated(24, 8)},
};

using Tensors = std::map<TensorRole, std::vector<float>>;

Tensors embedding_of(const Architecture& architecture) {
  std::mt19937 generator(12);
  std::normal_distribution<float> normal;
  std::vector<TensorRole> roles = {TensorRole::kTokenEmbedding};
  if (architecture.position_encoding == PositionEncoding::kLearned) roles.push_back(TensorRole::kPositionEmbedding);
  Tensors tensors;
  for (const TensorRole role : roles) {
    const std::vector<std::size_t> shape = test::shape_of(role, architecture);
    std::vector<float>& values = tensors[role];
    values.resize(shape[0] * shape[1]);
    for (float& value : values) value = normal(generator);
  }
  return tensors;
}

// What is asked of a session, one call after the other, and what it answers.
class Run {
 public:
  Run(Backend& backend, const Job& job, bool in_stages) : job_(job), block_(test::random_block(job.architecture, true, 1)) {
    const Tensors embedding = embedding_of(job.architecture);
    const std::vector<TensorView> embedding_views = test::views_of(embedding, job.architecture);
    const Workload workload = workload_of(job, in_stages);
    session_ = backend.open_session(job.architecture, job.precision, workload);
    session_->load_shard("embedding", embedding_views, context_);
    for (std::uint32_t group = 0; group < kGroups; ++group) session_->embed("embedding", tokens_of(group), context_);
    session_->release_shard("embedding");
    load_block();
  }

  static Workload workload_of(const Job& job, bool in_stages) {
    const Tensors embedding = embedding_of(job.architecture);
    const Tensors block = test::random_block(job.architecture, true, 1);
    const std::vector<TensorView> embedding_views = test::views_of(embedding, job.architecture);
    const std::vector<TensorView> block_views = test::views_of(block, job.architecture);
    Workload workload;
    workload.embedding = {embedding_views.begin(), embedding_views.end()};
    workload.block = {block_views.begin(), block_views.end()};
    workload.groups = kGroups;
    workload.samples_per_group = kSamples;
    workload.sequence_length = kTokens;
    workload.allocation_samples = kGroups * kSamples;
    workload.sparsity = 0.7;
    workload.repair = Repair::kFit;
    workload.dense_targets = job.dense_targets;
    workload.masked_in_stages = in_stages;
    return workload;
  }

  void load_block() { session_->load_shard("block", test::views_of(block_, job_.architecture), context_); }
  void release_block() { session_->release_shard("block"); }

  // Statistics of the sites, and what they add to Gram matrices and the drift.
  std::vector<SiteStatistics> collect(std::uint32_t group, InputSites sites, bool with_gram) {
    CallContext context;
    std::vector<SiteStatistics> statistics = with_gram ? session_->collect_with_gram("block", group, sites, sites, context)
                                                       : session_->collect_statistics("block", group, sites, context);
    attended_ = std::ranges::any_of(context.phases(), [](const PhaseTiming& phase) { return phase.phase == "attention"; });
    return statistics;
  }
  // Whether the last of those ran attention.
  bool attended() const { return attended_; }
  GramPart take_gram(InputSite site) { return session_->take_gram_sums("block", site); }

  void mask(TensorRole role, unsigned seed) {
    const std::vector<std::size_t> shape = test::shape_of(role, job_.architecture);
    const std::size_t row_bytes = (shape[1] + 7) / 8;
    std::vector<std::uint8_t> bits(shape[0] * row_bytes);
    std::mt19937 generator(seed);
    std::bernoulli_distribution drop(0.7);
    for (std::size_t i = 0; i < shape[0] * shape[1]; ++i) {
      const std::size_t column = i % shape[1];
      if (drop(generator)) bits[i / shape[1] * row_bytes + column / 8] |= static_cast<std::uint8_t>(1U << (column % 8));
    }
    session_->apply_mask("block", role, bits, context_);
  }
  void replace(TensorRole role) {
    std::vector<float> values = block_.at(role);
    std::ranges::reverse(values);
    const auto* const bytes = reinterpret_cast<const std::uint8_t*>(values.data());
    session_->replace_weights("block", role, ElementType::kF32, {bytes, values.size() * sizeof(float)}, context_);
  }

  void propagate(std::uint32_t group) {
    if (job_.dense_targets) session_->propagate_dense("block", group, context_);
    session_->propagate("block", group, context_);
  }
  std::vector<std::uint8_t> save(std::uint32_t group) { return session_->save_hidden_states(group, context_); }
  // As when the group comes back from elsewhere, or another one comes.
  void restore(std::uint32_t group) { copy(group, group); }
  void copy(std::uint32_t from, std::uint32_t to) { session_->restore_hidden_states(tokens_of(to), save(from), context_); }

 private:
  static GroupTokens tokens_of(std::uint32_t group) {
    GroupTokens tokens{group, kSamples, kTokens, {}};
    for (std::size_t i = 0; i < kSamples * kTokens; ++i) {
      tokens.ids.push_back(static_cast<std::int32_t>((i * 7 + i / 5 + group) % kVocabulary));
    }
    return tokens;
  }

  const Job& job_;
  Tensors block_;
  CallContext context_;
  std::unique_ptr<BackendSession> session_;
  bool attended_ = false;
};

void check_same(const std::vector<SiteStatistics>& some, const std::vector<SiteStatistics>& others) {
  REQUIRE(some.size() == others.size());
  for (std::size_t i = 0; i < some.size(); ++i) {
    CHECK(some[i].site == others[i].site);
    CHECK(some[i].sums_of_squares == others[i].sums_of_squares);
    CHECK(some[i].quality_inputs == others[i].quality_inputs);
  }
}

bool can_run(const Job& job) {
  const std::string reason = test::why_no(job.precision.compute);
  if (!reason.empty()) MESSAGE("skipped: " << job.name << ", because " << reason);
  return reason.empty();
}

std::vector<TensorRole> projections_of(const Architecture& architecture) {
  std::vector<TensorRole> roles = {TensorRole::kQueryWeight,  TensorRole::kKeyWeight, TensorRole::kValueWeight,
                                   TensorRole::kOutputWeight, TensorRole::kUpWeight,  TensorRole::kDownWeight};
  if (architecture.feed_forward == FeedForward::kGatedSilu) roles.push_back(TensorRole::kGateWeight);
  return roles;
}

constexpr InputSite kSites[] = {InputSite::kAttentionInput, InputSite::kAttentionOutput, InputSite::kFeedForwardInput,
                                InputSite::kFeedForwardHidden};

}  // namespace

TEST_CASE("the runs of stages go on from each other, with the bits they would have from the beginning") {
  const std::unique_ptr<Backend> backend = test::open_backend(2, 1U << 28);
  for (const Job& job : kJobs) {
    CAPTURE(job.name);
    if (!can_run(job)) continue;
    Run going_on(*backend, job, true);
    Run from_the_beginning(*backend, job, false);
    const std::vector<std::pair<InputSite, std::vector<TensorRole>>> stages = {
        {InputSite::kAttentionInput, {TensorRole::kQueryWeight, TensorRole::kKeyWeight, TensorRole::kValueWeight}},
        {InputSite::kAttentionOutput, {TensorRole::kOutputWeight}},
        {InputSite::kFeedForwardInput, {TensorRole::kUpWeight}},
        {InputSite::kFeedForwardHidden, {TensorRole::kDownWeight}}};
    for (const auto& [site, prunes] : stages) {
      for (std::uint32_t group = 0; group < kGroups; ++group) {
        check_same(going_on.collect(group, {site}, true), from_the_beginning.collect(group, {site}, true));
        // The second stage runs attention, and no other does.
        if (test::is_cpu() && site > InputSite::kAttentionOutput) {
          CHECK(going_on.attended() == (job.architecture.query_width() != job.architecture.hidden_size));
          CHECK(from_the_beginning.attended());
        }
      }
      const GramPart gram = going_on.take_gram(site);
      const GramPart other = from_the_beginning.take_gram(site);
      CHECK(gram.sums == other.sums);
      CHECK(gram.drift == other.drift);
      for (Run* const run : {&going_on, &from_the_beginning}) {
        for (const TensorRole role : prunes) run->mask(role, 3);
      }
    }
    for (std::uint32_t group = 0; group < kGroups; ++group) {
      for (Run* const run : {&going_on, &from_the_beginning}) run->propagate(group);
      CHECK(going_on.save(group) == from_the_beginning.save(group));
    }
  }
}

TEST_CASE("what stages go on from is forgotten when anything before it changes, whatever is called when") {
  const std::unique_ptr<Backend> backend = test::open_backend(2, 1U << 28);
  for (const Job& job : kJobs) {
    CAPTURE(job.name);
    // What is emulated takes its time, and goes on from nothing.
    if (test::is_emulated() || !can_run(job)) continue;
    Run one(*backend, job, true);
    Run other(*backend, job, false);
    const auto both = [&](const auto& work) {
      work(one);
      work(other);
    };
    const std::vector<TensorRole> projections = projections_of(job.architecture);
    std::mt19937 generator(5);
    const auto below = [&](std::size_t end) { return std::uniform_int_distribution<std::size_t>(0, end - 1)(generator); };
    for (int call = 0; call < 300; ++call) {
      CAPTURE(call);
      const auto group = static_cast<std::uint32_t>(below(kGroups));
      const TensorRole role = projections[below(projections.size())];
      const std::size_t kind = below(12);
      if (kind < 7) {
        InputSites sites = {kSites[below(4)]};
        if (below(3) == 0) sites.add(kSites[below(4)]);
        const bool with_gram = below(4) == 0;
        check_same(one.collect(group, sites, with_gram), other.collect(group, sites, with_gram));
      } else if (kind < 9) {
        both([&](Run& run) { run.mask(role, 7); });
      } else if (kind == 9) {
        both([&](Run& run) { run.replace(role); });
      } else if (kind == 10) {
        both([&](Run& run) { run.propagate(group); });
        CHECK(one.save(group) == other.save(group));
      } else if (below(2) == 0) {
        both([&](Run& run) { run.restore(group); });
      } else {
        both([](Run& run) {
          run.release_block();
          run.load_block();
        });
      }
    }
    for (const InputSite site : kSites) CHECK(one.take_gram(site).sums == other.take_gram(site).sums);
  }
}

TEST_CASE("what stages go on from is kept where there is room, and given up for groups that nobody planned") {
  if (!test::is_cpu()) return;
  const Job& job = kJobs[0];
  const auto plan_with = [&](std::uint64_t memory) {
    return test::open_backend(2, memory)->plan_session(job.architecture, job.precision, Run::workload_of(job, true));
  };
  const auto is_kept = [](const MemoryPlan& plan) {
    return std::ranges::any_of(plan.items, [](const MemoryItem& item) { return item.purpose == "activations between stages"; });
  };
  const MemoryPlan ample = plan_with(1U << 28);
  const MemoryPlan scarce = plan_with(ample.bytes() - 1);
  CHECK(is_kept(ample));
  CHECK_FALSE(is_kept(scarce));
  const std::uint64_t group_bytes = kSamples * kTokens * job.architecture.hidden_size * sizeof(float);
  CHECK(ample.bytes() == scarce.bytes() + kGroups * group_bytes);

  struct Case {
    std::uint64_t memory;
    bool goes_on;
    bool goes_on_beside_another;
  };
  for (const Case& test_case :
       {Case{scarce.bytes(), false, false}, Case{ample.bytes(), true, false}, Case{ample.bytes() + group_bytes, true, true}}) {
    CAPTURE(test_case.memory);
    const std::unique_ptr<Backend> backend = test::open_backend(2, test_case.memory);
    Run run(*backend, job, true);
    const auto check_going_on = [&](std::uint32_t group, bool expected) {
      run.collect(group, {InputSite::kAttentionOutput}, false);
      run.collect(group, {InputSite::kFeedForwardInput}, false);
      CHECK(run.attended() != expected);
    };
    check_going_on(0, test_case.goes_on);
    // As planned, there is no room for it beside what is kept but in the last case, and none at all in the first.
    if (!test_case.goes_on) continue;
    run.copy(0, kGroups);
    check_going_on(kGroups, false);
    for (std::uint32_t group = 0; group < kGroups; ++group) check_going_on(group, test_case.goes_on_beside_another);
    for (const TensorRole role : projections_of(job.architecture)) run.mask(role, 3);
    for (std::uint32_t group = 0; group <= kGroups; ++group) run.propagate(group);
    CHECK(run.save(0) == run.save(kGroups));
  }
}
