// What a job takes is what was planned for it.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "backend_under_test.h"
#include "reference_block.h"
#include "secateur/backend.h"

using namespace secateur;

namespace {

constexpr std::size_t kGroups = 3;
constexpr std::size_t kSamples = 2;
constexpr std::uint64_t kPlenty = std::uint64_t{1} << 30;

struct Job {
  std::string name;
  Architecture architecture;
  Precision precision;
  // 0: the loss is measured, nothing is pruned.
  double sparsity;
  std::size_t length;
  // Where one is computed nothing else is.
  BlockMetric metric = BlockMetric::kNone;
  // Projections are masked before those after them are allocated.
  bool in_stages = false;
  AllocationOptions allocation = {};
  std::size_t sketches = 0;
  Repair repair = Repair::kNone;
  bool swaps = false;
  bool dense_targets = false;
  // Share of the weights that an earlier step has dropped.
  double zeros = 0;
  // The attention loses nothing, then or now.
  bool attention_is_whole = false;

  bool has_grams() const { return repair != Repair::kNone || swaps; }
  // Of a device: what is emulated takes its time.
  bool is_like_another() const {
    const bool is_long = length > 20 && (metric != BlockMetric::kNone || sketches > 0);
    const bool is_like_a_fit = repair == Repair::kAdmm && dense_targets;
    return is_long || is_like_a_fit || zeros > 0 || allocation.layer_quality != LayerQuality::kCosimFlat;
  }
};

const Architecture kGated = {
    96, 160, 4, 2, 24, 512, 128, Normalization::kRms, 1e-6, PositionEncoding::kRotary, 10000.0, 0, FeedForward::kGatedSilu};
const Architecture kPlain = {
    96, 160, 4, 4, 24, 512, 128, Normalization::kLayer, 1e-5, PositionEncoding::kLearned, 0, 2, FeedForward::kRelu};

// Tokens wider than the hidden states, and long samples: embedding and measuring take the most they can.
Architecture projected() {
  Architecture architecture = kPlain;
  architecture.post_normalization = true;
  architecture.final_normalization = false;
  architecture.embedding_size = 200;
  return architecture;
}

// Only measured.
Job pruned_before(const char* name, const Architecture& architecture, Precision precision, std::size_t length, double zeros) {
  Job job = {name, architecture, precision, 0, length};
  job.zeros = zeros;
  return job;
}

// A line each.
// clang-format off
const Job kJobs[] = {
    {"gated, dense enough to multiply densely", kGated, Compute::kF32, 0.5, 20},
    {"gated, sparse", kGated, Compute::kF32, 0.8, 20},
    {"plain, sparse, long", kPlain, Compute::kF32, 0.8, 96},
    {"gated, bf16", kGated, Compute::kBF16, 0.7, 20},
    {"gated, measured", kGated, Compute::kF32, 0, 20},
    {"gated, bf16 hidden states", kGated, {Compute::kF32, HiddenStates::kBF16}, 0.5, 20},
    {"plain, measured, long, bf16 hidden states", kPlain, {Compute::kF32, HiddenStates::kBF16}, 0, 96},
    {"plain, measured, long", kPlain, Compute::kF32, 0, 96},
    {"projected, sparse", projected(), Compute::kF32, 0.8, 96},
    {"projected, measured", projected(), Compute::kF32, 0, 96},
    {"projected, measured in bf16", projected(), Compute::kBF16, 0, 96},
    pruned_before("gated, measured after it was pruned", kGated, Compute::kF32, 20, 0.8),
    pruned_before("projected, measured after it was pruned just enough for sparse copies", projected(), {Compute::kF32, HiddenStates::kBF16}, 96, 0.6),
    pruned_before("projected, measured after it was pruned just enough for sparse bf16 copies", projected(), Compute::kBF16, 96, 0.6),
    {"gated, outliers counted", kGated, Compute::kF32, 0, 20, BlockMetric::kOutliers},
    {"projected, outliers counted", projected(), Compute::kF32, 0, 96, BlockMetric::kOutliers},
    {"gated, sensitivity", kGated, Compute::kF32, 0.8, 20, BlockMetric::kSensitivity},
    {"projected, sensitivity, densely", projected(), Compute::kF32, 0.5, 96, BlockMetric::kSensitivity},
    {"gated, sensitivity in bf16", kGated, {Compute::kBF16, HiddenStates::kBF16}, 0.8, 20, BlockMetric::kSensitivity},
    {"gated, f16", kGated, Compute::kF16, 0.7, 20},
    {"gated, sensitivity in f16", kGated, {Compute::kF16, HiddenStates::kBF16}, 0.8, 20, BlockMetric::kSensitivity},
    {"gated, eigenvalues", kGated, Compute::kF32, 0, 20, BlockMetric::kSpectrum},
    {"plain, eigenvalues in bf16", kPlain, Compute::kBF16, 0, 20, BlockMetric::kSpectrum},
    {"gated, sparse, in stages", kGated, Compute::kF32, 0.8, 20, BlockMetric::kNone, true},
    {"plain, sparse, long, in stages", kPlain, Compute::kF32, 0.8, 96, BlockMetric::kNone, true},
    {"gated, sparse bf16, long, in stages", kGated, Compute::kBF16, 0.8, 96, BlockMetric::kNone, true},
    {"gated, by absolute errors", kGated, Compute::kF32, 0.8, 20, BlockMetric::kNone, false, {.layer_quality = LayerQuality::kMae}},
    {"gated, rows by squared errors", kGated, Compute::kF32, 0.8, 20, BlockMetric::kNone, false, {.row_quality = RowQuality::kMse}},
    {"gated, split for the least error", kGated, Compute::kF32, 0.5, 20, BlockMetric::kNone, false, {.allocation = Allocation::kOptimal}},
    {"gated, fitted", kGated, Compute::kF32, 0.8, 20, BlockMetric::kNone, false, {.allocation = Allocation::kUniform}, 0, Repair::kFit},
    {"plain, long, in stages, by ADMM", kPlain, Compute::kF32, 0.8, 96, BlockMetric::kNone, true, {.allocation = Allocation::kUniform}, 0, Repair::kAdmm},
    {"gated, by SparseGPT", kGated, Compute::kF32, 0.5, 20, BlockMetric::kNone, false, {.allocation = Allocation::kUniform}, 0, Repair::kSparseGpt},
    {"gated, swapped", kGated, Compute::kF32, 0.8, 20, BlockMetric::kNone, false, {}, 0, Repair::kNone, true},
    {"plain, long, in stages, swapped and fitted", kPlain, Compute::kF32, 0.8, 96, BlockMetric::kNone, true, {}, 0, Repair::kFit, true},
    {"gated, in stages, fitted towards the dense model", kGated, {Compute::kF32, HiddenStates::kBF16}, 0.8, 20, BlockMetric::kNone, true, {.allocation = Allocation::kUniform}, 0, Repair::kFit, false, true},
    {"projected, long, in stages, fitted towards the dense model", projected(), Compute::kF32, 0.5, 96, BlockMetric::kNone, true, {.allocation = Allocation::kUniform}, 0, Repair::kFit, false, true},
    {"projected, long, in stages, by ADMM towards the dense model", projected(), Compute::kF32, 0.5, 96, BlockMetric::kNone, true, {.allocation = Allocation::kUniform}, 0, Repair::kAdmm, false, true},
    {"gated, judged on sketches", kGated, Compute::kF32, 0.5, 20, BlockMetric::kNone, false, {}, kMostSketches},
    {"plain, long, in stages, split for the least error of sketches", kPlain, Compute::kF32, 0.8, 96, BlockMetric::kNone, true, {.allocation = Allocation::kOptimal}, 3},
};
// clang-format on

using Tensors = std::map<TensorRole, std::vector<float>>;

struct Shard {
  Shard(Tensors tensors, const Architecture& architecture) : values(std::move(tensors)) {
    for (const auto& [role, data] : values) {
      TensorView view;
      view.role = role;
      view.element_type = ElementType::kF32;
      view.shape = test::shape_of(role, architecture);
      view.bytes = {reinterpret_cast<const std::uint8_t*>(data.data()), data.size() * sizeof(float)};
      views.push_back(view);
    }
  }
  std::vector<TensorLayout> layouts() const { return {views.begin(), views.end()}; }

  Tensors values;
  std::vector<TensorView> views;
};

std::size_t elements_of(TensorRole role, const Architecture& architecture) {
  std::size_t elements = 1;
  for (const std::size_t size : test::shape_of(role, architecture)) elements *= size;
  return elements;
}

Shard random_shard(const std::vector<TensorRole>& roles, const Architecture& architecture) {
  Tensors tensors;
  for (const TensorRole role : roles) {
    std::vector<float>& values = tensors[role];
    values.resize(elements_of(role, architecture));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i * 7 % 13) / 13.0F - 0.4F;
  }
  return Shard(std::move(tensors), architecture);
}

std::vector<TensorRole> embedding_roles(const Architecture& a) {
  std::vector<TensorRole> roles = {TensorRole::kTokenEmbedding};
  if (a.position_encoding == PositionEncoding::kLearned) roles.push_back(TensorRole::kPositionEmbedding);
  if (a.embedding_size > 0) roles.push_back(TensorRole::kEmbeddingProjectionWeight);
  return roles;
}

std::vector<TensorRole> head_roles(const Architecture& a) {
  std::vector<TensorRole> roles = {TensorRole::kHeadWeight};
  if (a.final_normalization) roles.push_back(TensorRole::kFinalNormWeight);
  if (a.final_normalization && a.normalization == Normalization::kLayer) roles.push_back(TensorRole::kFinalNormBias);
  if (a.embedding_size > 0) roles.push_back(TensorRole::kHeadProjectionWeight);
  return roles;
}

bool is_projection(TensorRole role) {
  return role != TensorRole::kHeadWeight && std::string(name_of(role)).ends_with("-weight") &&
         std::string(name_of(role)).find("norm") == std::string::npos;
}

bool is_of_attention(TensorRole role) {
  return role == TensorRole::kQueryWeight || role == TensorRole::kKeyWeight || role == TensorRole::kValueWeight ||
         role == TensorRole::kOutputWeight;
}

bool is_pruned(const Job& job, TensorRole role) { return is_projection(role) && !(job.attention_is_whole && is_of_attention(role)); }

struct Model {
  explicit Model(const Architecture& a)
      : embedding(random_shard(embedding_roles(a), a)), block(test::random_block(a, false, 1), a), head(random_shard(head_roles(a), a)) {}
  // As an earlier step has left it: of the weights of projections that lose some, at least the job's share is zero.
  explicit Model(const Job& job) : Model(job.architecture) {
    for (auto& [role, values] : block.values) {
      for (std::size_t i = 0; i < values.size() && is_pruned(job, role); ++i)
        if (static_cast<double>(i % 5) < job.zeros * 5) values[i] = 0;
    }
  }
  Shard embedding;
  Shard block;
  Shard head;
};

std::size_t quality_inputs_of(const Job& job) { return kGroups * kSamples * std::max<std::size_t>(1, job.sketches); }

Workload workload_of(const Job& job, const Model& model) {
  Workload workload;
  workload.block = model.block.layouts();
  workload.metric = job.metric;
  if (job.metric == BlockMetric::kSpectrum) return workload;
  workload.embedding = model.embedding.layouts();
  if (job.sparsity == 0 && job.metric == BlockMetric::kNone) workload.head = model.head.layouts();
  workload.groups = kGroups;
  workload.samples_per_group = kSamples;
  workload.sequence_length = job.length;
  workload.allocation_samples = job.sparsity == 0 || job.metric != BlockMetric::kNone ? 0 : quality_inputs_of(job);
  workload.allocation = job.allocation.allocation;
  workload.layer_quality = job.allocation.layer_quality;
  workload.row_quality = job.allocation.row_quality;
  workload.sketches = job.sketches;
  workload.repair = job.repair;
  workload.swaps = job.swaps;
  workload.dense_targets = job.dense_targets;
  workload.sparsity = std::max(job.sparsity, job.zeros);
  workload.masked_in_stages = job.in_stages;
  return workload;
}

struct Stage {
  InputSites sites;
  std::vector<TensorRole> allocates;
};

std::vector<Stage> stages_of(const Job& job, const Model& model) {
  std::vector<TensorRole> all;
  for (const TensorView& tensor : model.block.views) {
    if (is_projection(tensor.role)) all.push_back(tensor.role);
  }
  if (!job.in_stages) return {{InputSites::all(), all}};
  std::vector<TensorRole> raise = {TensorRole::kUpWeight};
  if (job.architecture.feed_forward == FeedForward::kGatedSilu) raise.push_back(TensorRole::kGateWeight);
  return {{{InputSite::kAttentionInput}, {TensorRole::kQueryWeight, TensorRole::kKeyWeight, TensorRole::kValueWeight}},
          {{InputSite::kAttentionOutput}, {TensorRole::kOutputWeight}},
          {{InputSite::kFeedForwardInput}, raise},
          {{InputSite::kFeedForwardHidden}, {TensorRole::kDownWeight}}};
}

InputSite site_of(TensorRole projection) {
  switch (projection) {
    case TensorRole::kOutputWeight:
      return InputSite::kAttentionOutput;
    case TensorRole::kGateWeight:
    case TensorRole::kUpWeight:
      return InputSite::kFeedForwardInput;
    case TensorRole::kDownWeight:
      return InputSite::kFeedForwardHidden;
    default:
      return InputSite::kAttentionInput;
  }
}

// Gram matrices of a stage's sites, with swaps another of the samples that are held out.
struct Grams {
  std::vector<float> fitted;
  std::vector<float> held_out;
  std::vector<float> drift;
};

std::map<InputSite, Grams> gram_matrices_of(BackendSession& session, const Job& job, const Model& model, const Stage& stage,
                                            CallContext& context) {
  const GramSites sites{stage.sites, job.swaps};
  for (std::uint32_t group = 0; group < kGroups; ++group)
    session.collect_with_gram("block", group, stage.sites, sites, job.sketches, context);
  std::map<InputSite, std::pair<std::size_t, GramPart>> parts;
  for (const TensorView& tensor : model.block.views) {
    if (!is_projection(tensor.role)) continue;
    const InputSite site = site_of(tensor.role);
    if (stage.sites.contains(site) && !parts.contains(site))
      parts.emplace(site, std::pair(tensor.shape[1], session.take_gram_sums("block", site)));
  }
  std::map<InputSite, Grams> grams;
  const auto reduce = [&](std::size_t columns, const std::vector<std::uint8_t>& sums, std::size_t drift_rows = 0) {
    const std::span<const std::uint8_t> parts_of_site[] = {sums};
    return session.reduce_gram(columns, drift_rows, parts_of_site, context);
  };
  for (const auto& [site, part] : parts) {
    grams[site].fitted = reduce(part.first, part.second.sums);
    if (job.swaps) grams[site].held_out = reduce(part.first, part.second.held_out);
    const bool added = site == InputSite::kAttentionOutput || site == InputSite::kFeedForwardHidden;
    const std::size_t drift_rows = part.first + (added ? job.architecture.hidden_size : 0);
    if (job.dense_targets) grams[site].drift = reduce(part.first, part.second.drift, drift_rows);
  }
  return grams;
}

void repair_stage(BackendSession& session, const Job& job, const Model& model, const Stage& stage,
                  std::vector<std::pair<TensorRole, std::vector<std::uint8_t>>> masks, CallContext& context) {
  const std::map<InputSite, Grams> grams = gram_matrices_of(session, job, model, stage, context);
  std::vector<std::pair<TensorRole, std::vector<std::uint8_t>>> weights;
  for (const auto& [role, mask] : masks) {
    const auto& tensor = *std::ranges::find(model.block.views, role, &TensorView::role);
    RepairInput input;
    input.samples = kGroups * kSamples;
    input.gram = grams.at(site_of(role)).fitted;
    input.held_out_gram = grams.at(site_of(role)).held_out;
    input.drift = grams.at(site_of(role)).drift;
    input.mask = mask;
    const std::size_t swaps = job.swaps ? tensor.shape[1] / 4 : 0;
    // One iteration of a fit takes as much memory as many.
    const RepairOptions options{.method = job.repair, .iterations = 1, .swaps = swaps};
    weights.emplace_back(role, session.repair_rows("block", role, input, options, context).weights);
  }
  for (const auto& [role, bytes] : weights) session.replace_weights("block", role, ElementType::kF32, bytes, context);
}

void prune_stage(BackendSession& session, const Job& job, const Model& model, const Stage& stage, CallContext& context) {
  for (std::uint32_t group = 0; group < kGroups; ++group) session.collect_statistics("block", group, stage.sites, job.sketches, context);
  std::vector<std::pair<TensorRole, std::vector<std::uint8_t>>> masks;
  for (const TensorView& tensor : model.block.views) {
    if (std::ranges::find(stage.allocates, tensor.role) == stage.allocates.end() || !is_pruned(job, tensor.role)) continue;
    AllocationInput input;
    input.samples = quality_inputs_of(job);
    input.target_sparsity = job.sparsity;
    const std::vector<float> mean_squares(tensor.shape[1], 1.0F);
    std::vector<float> quality_inputs(input.samples * tensor.shape[1]);
    for (std::size_t i = 0; i < quality_inputs.size(); ++i) quality_inputs[i] = static_cast<float>(i % 7) - 3.0F;
    input.mean_squares = mean_squares;
    input.quality_inputs = quality_inputs;
    masks.emplace_back(tensor.role, session.allocate_rows("block", tensor.role, input, job.allocation, context).mask);
  }
  if (job.has_grams()) {
    repair_stage(session, job, model, stage, std::move(masks), context);
    return;
  }
  for (const auto& [role, mask] : masks) session.apply_mask("block", role, mask, context);
}

// Of all projections of the block.
struct InputSquares {
  explicit InputSquares(const Model& model) {
    for (const TensorView& tensor : model.block.views) {
      if (!is_projection(tensor.role)) continue;
      values[tensor.role].assign(tensor.shape[1], 1.0F);
      inputs.push_back({tensor.role, values[tensor.role]});
    }
  }

  std::map<TensorRole, std::vector<float>> values;
  std::vector<ProjectionInputSquares> inputs;
};

void count_outliers(BackendSession& session, const Model& model, CallContext& context) {
  for (std::uint32_t group = 0; group < kGroups; ++group) session.collect_statistics("block", group, context);
  session.count_outliers("block", InputSquares(model).inputs, 5, context);
}

void measure_sensitivity(BackendSession& session, const Job& job, const Model& model, CallContext& context) {
  std::vector<std::uint32_t> groups(kGroups);
  std::iota(groups.begin(), groups.end(), 0U);
  for (const std::uint32_t group : groups) session.collect_statistics("block", group, context);
  const InputSquares squares(model);
  session.measure_sensitivity("block", groups, squares.inputs, job.sparsity, context);
}

void find_eigenvalues(BackendSession& session, const Model& model, CallContext& context) {
  session.load_shard("block", model.block.views, context);
  for (const TensorView& tensor : model.block.views) {
    if (is_projection(tensor.role)) session.eigenvalues("block", tensor.role, context);
  }
}

void run(BackendSession& session, const Job& job, const Model& model) {
  CallContext context;
  if (job.metric == BlockMetric::kSpectrum) {
    find_eigenvalues(session, model, context);
    return;
  }
  session.load_shard("embedding", model.embedding.views, context);
  for (std::uint32_t group = 0; group < kGroups; ++group) {
    session.embed("embedding", {group, kSamples, job.length, std::vector<std::int32_t>(kSamples * job.length, 5)}, context);
  }
  session.release_shard("embedding");
  session.load_shard("block", model.block.views, context);
  session.load_shard("next", model.block.views, context);
  if (job.metric == BlockMetric::kSensitivity) {
    measure_sensitivity(session, job, model, context);
  } else if (job.sparsity > 0) {
    for (const Stage& stage : stages_of(job, model)) prune_stage(session, job, model, stage, context);
  }
  if (job.metric == BlockMetric::kOutliers) count_outliers(session, model, context);
  for (std::uint32_t group = 0; group < kGroups; ++group) {
    session.propagate("block", group, context);
    if (job.dense_targets) session.propagate_dense("block", group, context);
  }
  session.release_shard("block");
  if (job.sparsity > 0 || job.metric == BlockMetric::kOutliers) return;
  session.load_shard("head", model.head.views, context);
  for (std::uint32_t group = 0; group < kGroups; ++group) session.propagate("next", group, context);
  session.release_shard("next");
  for (std::uint32_t group = 0; group < kGroups; ++group) session.measure_loss("head", group, {}, context);
}

constexpr std::uint32_t kManyGroups = 5;

const Job kSmall = {"small",
                    {32, 48, 2, 1, 16, 64, 16, Normalization::kRms, 1e-6, PositionEncoding::kRotary, 10000.0, 0, FeedForward::kGatedSilu},
                    Compute::kF32,
                    0,
                    8};

// All that a session tells of a job: its groups are computed in more than one order, one is embedded anew, one is released, and there is
// one more than was planned, as after the loss of a node.
std::vector<double> tell_all(BackendSession& session, const Job& job, const Model& model) {
  CallContext context;
  std::vector<double> told;
  const auto tell = [&](const auto& values) { told.insert(told.end(), values.begin(), values.end()); };
  const auto embed = [&](std::uint32_t group) {
    std::vector<std::int32_t> ids(kSamples * job.length);
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>((i * i * 7 + group * 13 + 1) % 64);
    session.embed("embedding", {group, kSamples, job.length, std::move(ids)}, context);
  };
  session.load_shard("embedding", model.embedding.views, context);
  for (std::uint32_t group = 0; group <= kManyGroups; ++group) embed(group);
  embed(3);
  session.release_shard("embedding");
  session.load_shard("block", model.block.views, context);
  session.load_shard("next", model.block.views, context);
  for (std::uint32_t group = 0; group <= kManyGroups; ++group) {
    for (const SiteStatistics& site : session.collect_statistics("block", group, context)) {
      tell(site.sums_of_squares);
      tell(site.quality_inputs);
    }
  }
  for (std::uint32_t group = 0; group <= kManyGroups; ++group) session.propagate("block", kManyGroups - group, context);
  session.release_shard("block");
  session.release_group(2);
  session.load_shard("head", model.head.views, context);
  for (const std::uint32_t group : {0U, 1U, 3U, 4U, 5U}) session.propagate("next", group, context);
  session.release_shard("next");
  for (const std::uint32_t group : {4U, 0U, 1U, 5U, 3U}) {
    tell(session.measure_loss("head", group, {}, context));
    tell(session.last_logits("head", group, context));
  }
  return told;
}

std::uint64_t bytes_named(const std::vector<MemoryItem>& items, const std::string& purpose) {
  for (const MemoryItem& item : items) {
    if (item.purpose == purpose) return item.bytes;
  }
  return 0;
}

}  // namespace

TEST_CASE("a job takes no more memory than planned, and nearly as much") {
  for (const Job& job : kJobs) {
    CAPTURE(job.name);
    if (!test::why_no(job.precision.compute).empty()) continue;
    if (test::is_emulated() && job.is_like_another()) continue;
    const Model model(job);
    const std::unique_ptr<Backend> backend = test::open_backend(2, kPlenty);
    const std::uint64_t before = backend->memory_used_bytes();
    const Workload workload = workload_of(job, model);
    const MemoryPlan plan = backend->plan_session(job.architecture, job.precision, workload);
    CAPTURE(plan.step);
    const std::unique_ptr<BackendSession> session = backend->open_session(job.architecture, job.precision, workload);
    run(*session, job, model);
    const std::uint64_t taken = backend->memory_peak_bytes() - before;
    CHECK(taken <= plan.bytes());
    CHECK(taken >= plan.bytes() * 9 / 10);
  }
}

TEST_CASE("a block that has lost nothing but weights of its feed-forward half takes no more memory than planned") {
  // Each thread has inputs of its products.
  constexpr std::size_t kThreads = 8;
  Job pruned = {"pruned", kGated, Compute::kF32, 0.8, 96};
  pruned.allocation.allocation = Allocation::kScoreShare;
  for (const Compute compute : {Compute::kF32, Compute::kBF16}) {
    if (!test::why_no(compute).empty() || test::is_emulated()) continue;
    for (Job job : {pruned, pruned_before("measured", kGated, compute, 96, 0.8)}) {
      job.precision.compute = compute;
      job.attention_is_whole = true;
      CAPTURE(job.name);
      CAPTURE(static_cast<int>(compute));
      const Model model(job);
      const std::unique_ptr<Backend> backend = test::open_backend(kThreads, kPlenty);
      const Workload workload = workload_of(job, model);
      const MemoryPlan plan = backend->plan_session(job.architecture, job.precision, workload);
      CAPTURE(plan.step);
      const std::unique_ptr<BackendSession> session = backend->open_session(job.architecture, job.precision, workload);
      run(*session, job, model);
      CHECK(backend->memory_peak_bytes() <= plan.bytes());
    }
  }
}

TEST_CASE("a device's plan tells what an allocation takes of the host") {
  if (test::is_cpu()) return;
  const std::unique_ptr<Backend> backend = test::open_backend(2, kPlenty);
  const auto planned = [&](const AllocationOptions& allocation) {
    Job job = {"gated, sparse", kGated, Compute::kF32, 0.8, 20};
    job.allocation = allocation;
    const MemoryPlan plan = backend->plan_session(job.architecture, job.precision, workload_of(job, Model(job.architecture)));
    return bytes_named(plan.pinned, "allocation on the host of gate-weight");
  };
  CHECK(planned({}) == 0);
  // Curves and dense outputs are read, but for metrics that need pruned outputs, which the host sums up of the weights.
  const std::uint64_t curves = kGated.intermediate_size * (kGated.hidden_size + 1) * 2 * sizeof(float);
  const std::uint64_t dense_outputs = kGated.intermediate_size * kGroups * kSamples * sizeof(float);
  const std::uint64_t by_curves = planned({.row_quality = RowQuality::kPsnr});
  CHECK(by_curves > curves + dense_outputs);
  CHECK(by_curves < (curves + dense_outputs) * 5 / 4);
  CHECK(planned({.layer_quality = LayerQuality::kMse}) == by_curves);
  const std::uint64_t weights = kGated.intermediate_size * kGated.hidden_size * sizeof(float);
  CHECK(planned({.layer_quality = LayerQuality::kMae}) > weights + dense_outputs);
}

// Every fifth weight is kept.
std::vector<std::uint8_t> mask_of(const TensorView& tensor) {
  const std::size_t row_bytes = (tensor.shape[1] + 7) / 8;
  std::vector<std::uint8_t> mask(tensor.shape[0] * row_bytes);
  for (std::size_t row = 0; row < tensor.shape[0]; ++row) {
    for (std::size_t column = 0; column < tensor.shape[1]; ++column) {
      std::uint8_t& bits = mask[row * row_bytes + column / 8];
      if ((row + column) % 5 != 0) bits = static_cast<std::uint8_t>(bits | (1U << (column % 8)));
    }
  }
  return mask;
}

TEST_CASE("a node that collects and masks, and leaves the allocation to others, takes no more than planned") {
  // Masks take no memory of a device.
  if (!test::is_cpu()) return;
  // Many short samples, whose statistics take more than the copies that sparse products read.
  constexpr std::size_t kManySamples = 96;
  const Job job = {"gated, sparse, short", kGated, Compute::kF32, 0.8, 4};
  const Model model(job.architecture);
  const std::unique_ptr<Backend> backend = test::open_backend(1, kPlenty);
  Workload workload = workload_of(job, model);
  workload.samples_per_group = kManySamples;
  workload.allocation_samples = 1;
  workload.allocation = Allocation::kScoreShare;
  const MemoryPlan plan = backend->plan_session(job.architecture, job.precision, workload);
  const std::unique_ptr<BackendSession> session = backend->open_session(job.architecture, job.precision, workload);
  CallContext context;
  session->load_shard("embedding", model.embedding.views, context);
  for (std::uint32_t group = 0; group < kGroups; ++group) {
    session->embed("embedding", {group, kManySamples, job.length, std::vector<std::int32_t>(kManySamples * job.length, 5)}, context);
  }
  session->release_shard("embedding");
  session->load_shard("block", model.block.views, context);
  session->load_shard("next", model.block.views, context);
  session->collect_statistics("block", 0, context);
  for (const TensorView& tensor : model.block.views) {
    if (is_projection(tensor.role)) session->apply_mask("block", tensor.role, mask_of(tensor), context);
  }
  session->propagate("block", 0, context);
  CAPTURE(plan.step);
  CHECK(backend->memory_peak_bytes() <= plan.bytes());
}

TEST_CASE("collecting sketches takes the memory that is planned for it") {
  const Model model(kPlain);
  constexpr std::size_t kGroupSamples = 8;
  constexpr std::size_t kLength = 96;
  Workload workload;
  workload.embedding = model.embedding.layouts();
  workload.block = model.block.layouts();
  workload.groups = 1;
  workload.samples_per_group = kGroupSamples;
  workload.sequence_length = kLength;
  workload.allocation_samples = kGroupSamples;
  // Of a device it takes nothing.
  workload.allocation = Allocation::kScoreShare;
  std::uint64_t without = 0;
  for (const std::size_t sketches : {std::size_t{0}, kMostSketches}) {
    CAPTURE(sketches);
    workload.sketches = sketches;
    const std::unique_ptr<Backend> backend = test::open_backend(1, kPlenty);
    const MemoryPlan plan = backend->plan_session(kPlain, Compute::kF32, workload);
    CHECK(plan.step == "collect");
    const std::unique_ptr<BackendSession> session = backend->open_session(kPlain, Compute::kF32, workload);
    CallContext context;
    session->load_shard("embedding", model.embedding.views, context);
    session->embed("embedding", {0, kGroupSamples, kLength, std::vector<std::int32_t>(kGroupSamples * kLength, 5)}, context);
    session->release_shard("embedding");
    session->load_shard("block", model.block.views, context);
    session->load_shard("next", model.block.views, context);
    session->collect_statistics("block", 0, InputSites::all(), sketches, context);
    CHECK(backend->memory_peak_bytes() <= plan.bytes());
    CHECK(backend->memory_peak_bytes() >= plan.bytes() * 99 / 100);
    if (sketches == 0) without = plan.bytes();
    // A device has them where the inputs of last tokens would be.
    const std::size_t added = test::is_cpu() ? kMostSketches : kMostSketches - 1;
    if (sketches > 0) CHECK(plan.bytes() - without >= kGroupSamples * added * (3 * 96 + 160) * sizeof(float));
  }
}

TEST_CASE("groups that differ in length are planned by their tokens, and by the largest for what one of them takes") {
  const Job& job = kJobs[4];
  const Model model(job.architecture);
  const std::unique_ptr<Backend> backend = test::open_backend(2, kPlenty);
  Workload workload = workload_of(job, model);
  const std::uint64_t equal = backend->plan_session(job.architecture, job.precision, workload).bytes();
  workload.tokens = kGroups * kSamples * job.length;
  CHECK(backend->plan_session(job.architecture, job.precision, workload).bytes() == equal);
  workload.tokens -= 7;
  // A device has a place of the same size for each group.
  const std::uint64_t saved = test::is_cpu() ? 7 * job.architecture.hidden_size * sizeof(float) : 0;
  CHECK(backend->plan_session(job.architecture, job.precision, workload).bytes() == equal - saved);
}

TEST_CASE("a group of shorter samples fits where one of the longest was planned") {
  // A device takes one sample of the longest at a time and two of the others, which have more tokens together.
  constexpr std::size_t kLongest = 2100;
  constexpr std::size_t kShorter = 2000;
  Architecture architecture = kSmall.architecture;
  architecture.maximum_positions = kLongest;
  const Model model(architecture);
  for (const Compute compute : {Compute::kF32, Compute::kBF16}) {
    if (!test::why_no(compute).empty()) continue;
    CAPTURE(static_cast<int>(compute));
    Workload workload;
    workload.embedding = model.embedding.layouts();
    workload.block = model.block.layouts();
    workload.head = model.head.layouts();
    workload.groups = 2;
    workload.samples_per_group = kSamples;
    workload.sequence_length = kLongest;
    workload.tokens = kSamples * (kLongest + kShorter);
    const std::uint64_t needed = test::open_backend(1, kPlenty)->plan_session(architecture, compute, workload).bytes();
    const std::unique_ptr<Backend> backend = test::open_backend(1, needed);
    const std::unique_ptr<BackendSession> session = backend->open_session(architecture, compute, workload);
    CallContext context;
    session->load_shard("embedding", model.embedding.views, context);
    const auto embed = [&](std::uint32_t group, std::size_t length) {
      session->embed("embedding", {group, kSamples, length, std::vector<std::int32_t>(kSamples * length, 5)}, context);
    };
    embed(0, kLongest);
    embed(1, kShorter);
    session->release_shard("embedding");
    // Each token looks at few others: what is emulated takes its time.
    session->load_shard("block", model.block.views, 8, context);
    session->load_shard("next", model.block.views, 8, context);
    for (const std::uint32_t group : {0U, 1U}) session->propagate("block", group, context);
    CHECK(backend->memory_peak_bytes() <= needed);
  }
}

TEST_CASE("bf16 halves the hidden states of every step") {
  const auto states_bytes = [](const MemoryPlan& plan) {
    return bytes_named(plan.items, test::is_cpu() ? "hidden states" : "hidden states of 3 groups");
  };
  for (const Job& job : {kJobs[0], kJobs[5]}) {
    CAPTURE(job.name);
    const Model model(job.architecture);
    const std::unique_ptr<Backend> backend = test::open_backend(2, kPlenty);
    const Workload workload = workload_of(job, model);
    const MemoryPlan wide = backend->plan_session(job.architecture, Compute::kF32, workload);
    const MemoryPlan narrow = backend->plan_session(job.architecture, {Compute::kF32, HiddenStates::kBF16}, workload);
    const std::uint64_t group = kSamples * job.length * job.architecture.hidden_size * sizeof(float);
    CHECK(states_bytes(wide) == kGroups * group);
    CHECK(states_bytes(narrow) * 2 == states_bytes(wide));
    // A device computes with one group in float32.
    CHECK(bytes_named(narrow.items, "hidden states in float32") == (test::is_cpu() ? 0 : group));
    CHECK(narrow.bytes() < wide.bytes());
  }
}

TEST_CASE("a job that does not fit is refused before it begins, with what it needs") {
  const Job& job = kJobs[0];
  const Model model(job.architecture);
  const Workload workload = workload_of(job, model);
  // A device that has too little for all hidden states keeps some of them on the host; this is the least it needs.
  const std::uint64_t needed = test::open_backend(2, 1)->plan_session(job.architecture, job.precision, workload).bytes();
  const std::unique_ptr<Backend> backend = test::open_backend(2, needed - 1);
  try {
    backend->open_session(job.architecture, job.precision, workload);
    FAIL("no error");
  } catch (const OutOfMemory& error) {
    CHECK(error.needed_bytes() == needed);
    CHECK(error.available_bytes() == needed - 1);
    CHECK(std::string(error.what()).find("hidden states") != std::string::npos);
  }
  const std::unique_ptr<Backend> enough = test::open_backend(2, needed);
  run(*enough->open_session(job.architecture, job.precision, workload), job, model);
}

void check_kept_on_host(HiddenStates type) {
  const Precision precision(Compute::kF32, type);
  const std::size_t value_bytes = type == HiddenStates::kBF16 ? sizeof(std::uint16_t) : sizeof(float);
  const Model model(kSmall.architecture);
  Workload workload = workload_of(kSmall, model);
  workload.groups = kManyGroups;
  workload.allocation_samples = kManyGroups * kSamples;
  const auto open = [&](Backend& backend) { return backend.open_session(kSmall.architecture, precision, workload); };
  const auto plan_for = [&](std::uint64_t budget) {
    return test::open_backend(1, budget)->plan_session(kSmall.architecture, precision, workload);
  };
  const MemoryPlan all = plan_for(kPlenty);
  const std::uint64_t group = bytes_named(all.items, "hidden states of 5 groups") / kManyGroups;
  CHECK(group >= kSamples * kSmall.length * kSmall.architecture.hidden_size * value_bytes);
  CHECK(bytes_named(all.pinned, "hidden states of 5 groups") == 0);
  const std::vector<double> expected = tell_all(*open(*test::open_backend(1, kPlenty)), kSmall, model);

  // Two groups pass through the device.
  const std::uint64_t least = plan_for(1).bytes();
  CHECK(least == all.bytes() - (kManyGroups - 2) * group);
  for (const std::size_t on_device : {std::size_t{0}, std::size_t{2}}) {
    CAPTURE(on_device);
    const std::uint64_t enough = least + on_device * group;
    CHECK(plan_for(enough + group - 1).bytes() == enough);
    const MemoryPlan plan = plan_for(enough);
    CHECK(plan.bytes() == enough);
    CHECK(bytes_named(plan.items, "hidden states of 2 groups") == on_device * group);
    CHECK(bytes_named(plan.items, "hidden states that pass through the device") == 2 * group);
    const std::size_t on_host = kManyGroups - on_device;
    CHECK(bytes_named(plan.pinned, "hidden states of " + std::to_string(on_host) + " groups") == on_host * group);
    const std::unique_ptr<Backend> backend = test::open_backend(1, enough);
    CHECK(tell_all(*open(*backend), kSmall, model) == expected);
    CHECK(backend->memory_peak_bytes() <= enough);
    CHECK(backend->memory_used_bytes() == 0);
  }
}

TEST_CASE("hidden states that do not fit the device are kept on the host, with the same results to the bit") {
  if (test::is_cpu()) return;
  check_kept_on_host(HiddenStates::kF32);
  check_kept_on_host(HiddenStates::kBF16);
}

TEST_CASE("what a repair takes on the host is planned beside the device") {
  if (test::is_cpu()) return;
  for (const Job& job : kJobs) {
    if (!job.has_grams()) continue;
    CAPTURE(job.name);
    const Model model(job.architecture);
    const std::unique_ptr<Backend> backend = test::open_backend(2, kPlenty);
    const MemoryPlan plan = backend->plan_session(job.architecture, Compute::kF32, workload_of(job, model));
    std::uint64_t planned = 0;
    for (const MemoryItem& item : plan.pinned) {
      if (item.purpose.starts_with("repair on the host of ")) planned = item.bytes;
    }
    // Of the down projection: the Gram matrices; with the sums of one, two float64 of each value in half of it, or the dense weights, what
    // a row lost and its products with both.
    const std::uint64_t width = job.architecture.intermediate_size;
    const std::uint64_t grams = (job.swaps ? 2 : 1) * width * width * sizeof(float);
    const std::uint64_t sums = width * (width + 1) / 2 * 2 * sizeof(double);
    const std::uint64_t swapped = job.swaps ? 4 * job.architecture.hidden_size * width * sizeof(float) : 0;
    CHECK(planned >= grams + std::max(sums, swapped));
  }
}

TEST_CASE("sessions are refused what others have been promised") {
  const Job& job = kJobs[0];
  const Model model(job.architecture);
  const Workload workload = workload_of(job, model);
  if (test::is_cpu()) return;
  const std::uint64_t needed = test::open_backend(1, kPlenty)->plan_session(job.architecture, job.precision, workload).bytes();
  const std::unique_ptr<Backend> backend = test::open_backend(1, needed * 5 / 4);
  const std::unique_ptr<BackendSession> first = backend->open_session(job.architecture, job.precision, workload);
  CHECK(backend->memory_used_bytes() == needed);
  CHECK_THROWS_AS(backend->open_session(job.architecture, job.precision, workload), OutOfMemory);
}

TEST_CASE("a workload that contradicts the architecture is refused") {
  const Job& job = kJobs[0];
  const Model model(job.architecture);
  const std::unique_ptr<Backend> backend = test::open_backend(1, kPlenty);
  const auto check_refused = [&](auto change) {
    Workload workload = workload_of(job, model);
    change(workload);
    CHECK_THROWS_AS(backend->plan_session(job.architecture, job.precision, workload), Error);
  };
  check_refused([](Workload& workload) { workload.block.pop_back(); });
  check_refused([](Workload& workload) { workload.embedding.clear(); });
  check_refused([](Workload& workload) { workload.block = workload.embedding; });
  check_refused([](Workload& workload) { workload.sequence_length = 0; });
  check_refused([](Workload& workload) { workload.sequence_length = 129; });
  check_refused([](Workload& workload) { workload.allocation_samples = std::size_t{1} << 25; });
  check_refused([](Workload& workload) { workload.groups = workload.samples_per_group = std::size_t{1} << 24; });
  check_refused([](Workload& workload) { workload.tokens = kGroups * kSamples * workload.sequence_length + 1; });
  check_refused([](Workload& workload) { workload.sparsity = 1; });
  check_refused([](Workload& workload) { workload.block[0].shape = {1, 1}; });
}

TEST_CASE("heads that are too wide for a device are refused before any work, with the way out") {
  // The CPU takes any.
  if (test::is_cpu()) return;
  const std::unique_ptr<Backend> backend = test::open_backend(1, kPlenty);
  const auto with_heads_of = [](std::size_t dimension) {
    Job job = kSmall;
    job.architecture.head_dimension = dimension;
    return job;
  };
  const Job widest = with_heads_of(128);
  CHECK_NOTHROW(backend->open_session(widest.architecture, widest.precision, workload_of(widest, Model(widest.architecture))));
  const Job wider = with_heads_of(130);
  const auto check_refused = [&](auto work) {
    try {
      work();
      FAIL_CHECK("no error");
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kFailedPrecondition);
      for (const char* const mention : {"130", "128", "--backend cpu"}) {
        CHECK_MESSAGE(std::string(error.what()).find(mention) != std::string::npos, std::string(error.what()));
      }
    }
  };
  const Workload workload = workload_of(wider, Model(wider.architecture));
  check_refused([&] { backend->plan_session(wider.architecture, wider.precision, workload); });
  check_refused([&] { backend->open_session(wider.architecture, wider.precision, workload); });
  check_refused([&] { backend->open_session(wider.architecture, wider.precision, {}); });
}
