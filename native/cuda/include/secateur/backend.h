// The backend interface: what a device must be able to do for a job. `cpu` is linked in; others may come as shared libraries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "secateur/allocation.h"
#include "secateur/call_context.h"
#include "secateur/element_type.h"
#include "secateur/memory_budget.h"
#include "secateur/memory_plan.h"
#include "secateur/placement.h"
#include "secateur/repair.h"

namespace secateur {

// What the products of activations with weights, and of attention, take in; their sums, and everything else, are float32. A float16 has
// three bits more than a bfloat16 but ends at 65504: what is larger becomes infinite.
enum class Compute { kF32, kBF16, kF16 };
// What hidden states are kept in between blocks. bfloat16 takes half the memory; a block then begins with values rounded to the nearest.
enum class HiddenStates { kF32, kBF16 };
enum class Normalization { kRms, kLayer };
enum class PositionEncoding { kRotary, kLearned };
enum class FeedForward { kGatedSilu, kRelu };
enum class RotaryScaling { kNone, kLinear, kLlama3 };

// What a block computes, apart from its tensors.
struct Architecture {
  std::size_t hidden_size = 0;
  std::size_t intermediate_size = 0;
  std::size_t attention_heads = 0;
  std::size_t key_value_heads = 0;
  std::size_t head_dimension = 0;
  std::size_t vocabulary_size = 0;
  std::size_t maximum_positions = 0;
  Normalization normalization = Normalization::kRms;
  double normalization_epsilon = 0;
  PositionEncoding position_encoding = PositionEncoding::kRotary;
  double rotary_base = 0;
  std::size_t learned_position_offset = 0;
  FeedForward feed_forward = FeedForward::kGatedSilu;
  // Each half of a block is normalised after its residual is added, not before it begins.
  bool post_normalization = false;
  // The head begins with a normalisation.
  bool final_normalization = true;
  // Width of the token embedding where a projection leads from it to the hidden states, and one from them to the head; 0 where none does.
  std::size_t embedding_size = 0;
  RotaryScaling rotary_scaling = RotaryScaling::kNone;
  // How many times longer positions are than those the frequencies were made for; used with either scaling.
  double rotary_factor = 1;
  // kLlama3: frequencies with fewer than low_frequency_factor turns in original_positions are divided by the factor, those with more than
  // high_frequency_factor stay, and between them the share changes evenly.
  double low_frequency_factor = 0;
  double high_frequency_factor = 0;
  double original_positions = 0;

  std::size_t query_width() const noexcept { return attention_heads * head_dimension; }
  std::size_t key_width() const noexcept { return key_value_heads * head_dimension; }
  // Of the token embedding and of what the head's weight takes.
  std::size_t token_width() const noexcept { return embedding_size == 0 ? hidden_size : embedding_size; }
};

// The numbers of a session. Most sessions name only what they multiply.
struct Precision {
  Precision(Compute products, HiddenStates states = HiddenStates::kF32) : compute(products), hidden_states(states) {}
  Compute compute;
  HiddenStates hidden_states;
};

// What a tensor does in its shard; the order is that of kTensorRoleNames.
enum class TensorRole {
  kTokenEmbedding,
  kPositionEmbedding,
  kAttentionNormWeight,
  kAttentionNormBias,
  kQueryWeight,
  kQueryBias,
  kKeyWeight,
  kKeyBias,
  kValueWeight,
  kValueBias,
  kOutputWeight,
  kOutputBias,
  kFeedForwardNormWeight,
  kFeedForwardNormBias,
  kGateWeight,
  kUpWeight,
  kUpBias,
  kDownWeight,
  kDownBias,
  kFinalNormWeight,
  kFinalNormBias,
  kHeadWeight,
  kQueryNormWeight,
  kKeyNormWeight,
  kGateBias,
  kEmbeddingProjectionWeight,
  kHeadProjectionWeight,
};

inline constexpr const char* kTensorRoleNames[] = {
    "token-embedding",
    "position-embedding",
    "attention-norm-weight",
    "attention-norm-bias",
    "query-weight",
    "query-bias",
    "key-weight",
    "key-bias",
    "value-weight",
    "value-bias",
    "output-weight",
    "output-bias",
    "feed-forward-norm-weight",
    "feed-forward-norm-bias",
    "gate-weight",
    "up-weight",
    "up-bias",
    "down-weight",
    "down-bias",
    "final-norm-weight",
    "final-norm-bias",
    "head-weight",
    "query-norm-weight",
    "key-norm-weight",
    "gate-bias",
    "embedding-projection-weight",
    "head-projection-weight",
};

inline const char* name_of(TensorRole role) { return kTensorRoleNames[static_cast<std::size_t>(role)]; }

// What a tensor of a shard is, without its values.
struct TensorLayout {
  TensorRole role = TensorRole::kTokenEmbedding;
  ElementType element_type = ElementType::kF32;
  std::vector<std::size_t> shape;
};

// A tensor as stored: little-endian, row-major, any alignment. The bytes live as long as the call they are given to.
struct TensorView : TensorLayout {
  std::span<const std::uint8_t> bytes;
};

// What is measured of every dense block before anything is pruned, to split the sparsity of a model over its blocks. kOutliers: scores that
// stand out, after a pass of the hidden states through the dense model. kSpectrum: eigenvalues of the weights, which needs no hidden
// states. kSensitivity: how far its output moves when projections are pruned one at a time, in such a pass.
enum class BlockMetric { kNone, kOutliers, kSpectrum, kSensitivity };

// What a job will ask of one session, known before anything is loaded.
struct Workload {
  // Of each kind of shard the one that takes the most; the head is empty where no loss is measured. With the metric kSpectrum only the
  // block is used.
  std::vector<TensorLayout> embedding;
  std::vector<TensorLayout> block;
  std::vector<TensorLayout> head;
  // Calibration groups whose hidden states this session will keep.
  std::size_t groups = 0;
  std::size_t samples_per_group = 0;
  std::size_t sequence_length = 0;
  // Tokens of those groups together where they differ in length; 0 where all are as large as the largest.
  std::size_t tokens = 0;
  // Quality inputs of all sessions of the job, which an allocation reads; 0 where nothing is allocated.
  std::size_t allocation_samples = 0;
  // As collect_statistics takes them.
  std::size_t sketches = 0;
  Allocation allocation = Allocation::kTrim;
  // How allocated projections are repaired.
  Repair repair = Repair::kNone;
  // Masks are bettered by swaps.
  bool swaps = false;
  LayerQuality layer_quality = LayerQuality::kCosimFlat;
  RowQuality row_quality = RowQuality::kCosim;
  // Share of the weights that are dropped.
  double sparsity = 0;
  BlockMetric metric = BlockMetric::kNone;
  // Projections are masked while statistics of those after them are still to be collected.
  bool masked_in_stages = false;
  // Weights are fitted to what brings the model back to the dense one: the session keeps the dense weights of a block and the hidden states
  // of the dense model too.
  bool dense_targets = false;

  // Nothing is known: no plan can be made.
  bool empty() const noexcept { return block.empty(); }
  // Tokens whose hidden states this session will keep.
  std::size_t kept_tokens() const noexcept { return tokens != 0 ? tokens : groups * samples_per_group * sequence_length; }
};

// A place in a block whose values feed one or more projections; in network order.
enum class InputSite { kAttentionInput, kAttentionOutput, kFeedForwardInput, kFeedForwardHidden };

inline constexpr const char* kInputSiteNames[] = {"attention-input", "attention-output", "feed-forward-input", "feed-forward-hidden"};

inline const char* name_of(InputSite site) { return kInputSiteNames[static_cast<std::size_t>(site)]; }

// Some of the sites of a block.
class InputSites {
 public:
  constexpr InputSites(std::initializer_list<InputSite> sites) {
    for (const InputSite site : sites) add(site);
  }
  static constexpr InputSites all() {
    return {InputSite::kAttentionInput, InputSite::kAttentionOutput, InputSite::kFeedForwardInput, InputSite::kFeedForwardHidden};
  }

  constexpr void add(InputSite site) { bits_ |= bit(site); }
  constexpr bool empty() const { return bits_ == 0; }
  constexpr bool contains(InputSite site) const { return (bits_ & bit(site)) != 0; }
  // Whether no site after this one is among them.
  constexpr bool end_at(InputSite site) const { return bits_ < 2 * bit(site); }

 private:
  static constexpr unsigned bit(InputSite site) { return 1U << static_cast<unsigned>(site); }

  unsigned bits_ = 0;
};

struct SiteStatistics {
  InputSite site = InputSite::kAttentionInput;
  // [columns] over all tokens of the group.
  std::vector<double> sums_of_squares;
  // [samples, columns]: input of the last token of each sample. With sketches, [samples, sketches, columns]: Σ ±input / √tokens over the
  // tokens of each sample, each with signs of its own (common/sketch_signs.h).
  std::vector<float> quality_inputs;
};

// An answer with the statistics of a group has to fit a message.
inline constexpr std::size_t kMostSketches = 8;

// The mean squares of what a projection of a block takes in.
struct ProjectionInputSquares {
  TensorRole projection = TensorRole::kQueryWeight;
  // [columns]
  std::span<const float> mean_squares;
};

// How many scores of a block stand out.
struct OutlierCount {
  std::uint64_t weights = 0;
  std::uint64_t outliers = 0;
  double mean_score = 0;
};

// Sites whose inputs are added to Gram matrices.
struct GramSites {
  InputSites sites;
  // Some samples of every group are held out: they have sums of their own.
  bool hold_out = false;
};

// Of the samples of a group, those that are held out where some are: every fourth, from the second on. So a group of two has one of each.
constexpr bool is_held_out(std::size_t sample) { return sample % 4 == 1; }

// How far the output of a block moves when projections are pruned one at a time, over all tokens of a group.
struct BlockSensitivity {
  // Squared norm of the output of the block as it is.
  double output_energy = 0;
  // Of each projection: squared norm of what pruning it alone changes in that output.
  std::vector<double> errors;
};

// What some groups add to the Gram matrix of an input site.
struct GramPart {
  std::vector<std::uint32_t> groups;
  // Sums that reduce_gram takes, in a form of this version of the engine.
  std::vector<std::uint8_t> sums;
  // Of the samples that are held out, which the sums are without; empty where none are.
  std::vector<std::uint8_t> held_out = {};
  // Of the drift that RepairInput takes, over all samples; empty in a session without dense targets.
  std::vector<std::uint8_t> drift = {};
};

// Token ids [samples, sequence_length] of one calibration group.
struct GroupTokens {
  std::uint32_t index = 0;
  std::size_t samples = 0;
  std::size_t sequence_length = 0;
  std::vector<std::int32_t> ids;
};

// Tokens of a sample: those at the positions from `first` on and before `end`.
struct TokenRange {
  std::size_t first = 0;
  std::size_t end = 0;
};

// One job's weights and hidden states on one device. Not thread-safe: calls are made one after the other.
// Using a shard or group that is not there is FailedPrecondition, releasing one does nothing; wrong shapes, roles and ids are
// InvalidArgument.
class BackendSession {
 public:
  virtual ~BackendSession() = default;
  // attention_window: keys that each query of the block sees, its own the last; 0 for all.
  virtual void load_shard(const std::string& shard, std::span<const TensorView> tensors, std::size_t attention_window,
                          CallContext& context) = 0;
  void load_shard(const std::string& shard, std::span<const TensorView> tensors, CallContext& context) {
    load_shard(shard, tensors, 0, context);
  }
  virtual void release_shard(const std::string& shard) = 0;
  virtual void embed(const std::string& shard, GroupTokens tokens, CallContext& context) = 0;
  // Statistics of those sites in network order. The block runs no further than to the last of them. InvalidArgument when there is none.
  // sketches: up to kMostSketches; 0 for the inputs of the last tokens.
  virtual std::vector<SiteStatistics> collect_statistics(const std::string& shard, std::uint32_t group, InputSites sites,
                                                         std::size_t sketches, CallContext& context) = 0;
  std::vector<SiteStatistics> collect_statistics(const std::string& shard, std::uint32_t group, InputSites sites, CallContext& context) {
    return collect_statistics(shard, group, sites, 0, context);
  }
  std::vector<SiteStatistics> collect_statistics(const std::string& shard, std::uint32_t group, CallContext& context) {
    return collect_statistics(shard, group, InputSites::all(), context);
  }
  virtual void propagate(const std::string& shard, std::uint32_t group, CallContext& context) = 0;
  // The same for the hidden states of the dense model, through the block as it was loaded. FailedPrecondition where none are kept.
  virtual void propagate_dense(const std::string& shard, std::uint32_t group, CallContext& context) = 0;
  // Mean negative log-likelihood of the tokens in the range of each sample; of tokens 1 … T-1 where no ranges are given.
  virtual std::vector<double> measure_loss(const std::string& shard, std::uint32_t group, std::span<const TokenRange> ranges,
                                           CallContext& context) = 0;
  // Logits [vocabulary] of the last token of the first sample.
  virtual std::vector<float> last_logits(const std::string& shard, std::uint32_t group, CallContext& context) = 0;
  // `input.weights`, `rows` and `columns` are taken from the loaded projection.
  virtual AllocatedRows allocate_rows(const std::string& shard, TensorRole projection, AllocationInput input,
                                      const AllocationOptions& options, CallContext& context) = 0;
  // Of the projections of a dense block together: scores |W| · √mean_squares above `threshold` times their mean.
  virtual OutlierCount count_outliers(const std::string& shard, std::span<const ProjectionInputSquares> projections, double threshold,
                                      CallContext& context) = 0;
  // Each of the projections of a dense block in turn loses its floor(sparsity · rows · columns) lowest scores |W| · √mean_squares, whatever
  // their row. One answer per group. Weights and hidden states stay as they are.
  virtual std::vector<BlockSensitivity> measure_sensitivity(const std::string& shard, std::span<const std::uint32_t> groups,
                                                            std::span<const ProjectionInputSquares> projections, double sparsity,
                                                            CallContext& context) = 0;
  // Eigenvalues of W·Wᵀ, or of WᵀW where that is smaller, ascending.
  virtual std::vector<double> eigenvalues(const std::string& shard, TensorRole projection, CallContext& context) = 0;
  virtual void apply_mask(const std::string& shard, TensorRole projection, std::span<const std::uint8_t> mask, CallContext& context) = 0;
  virtual void release_group(std::uint32_t group) = 0;
  // The hidden states of a group as they are kept between blocks, little-endian: those of the pruned model and then, where they are kept,
  // those of the dense one. For sessions of the same architecture, precision and targets, on whatever device.
  virtual std::vector<std::uint8_t> save_hidden_states(std::uint32_t group, CallContext& context) = 0;
  // A group as it was saved, in place of the one that had its index. InvalidArgument when the bytes are not as many as its tokens take.
  virtual void restore_hidden_states(GroupTokens tokens, std::span<const std::uint8_t> saved, CallContext& context) = 0;

  // As collect_statistics; the inputs of some of the sites are added to their Gram matrices too, unless those of the group were added
  // already. All groups of a block are to hold samples out, or none.
  virtual std::vector<SiteStatistics> collect_with_gram(const std::string& shard, std::uint32_t group, InputSites sites, GramSites grams,
                                                        std::size_t sketches, CallContext& context) = 0;
  std::vector<SiteStatistics> collect_with_gram(const std::string& shard, std::uint32_t group, InputSites sites, InputSites gram_sites,
                                                CallContext& context) {
    return collect_with_gram(shard, group, sites, {gram_sites}, 0, context);
  }
  // Hands over what was added to the Gram matrix of a site of a block since the last time. No groups where that is nothing.
  virtual GramPart take_gram_sums(const std::string& shard, InputSite site) = 0;
  // The matrix float32 that sums add up to, the same in whatever order: the Gram matrix [columns, columns] or, of so many rows, the drift
  // [drift_rows, columns].
  virtual std::vector<float> reduce_gram(std::size_t columns, std::size_t drift_rows, std::span<const std::span<const std::uint8_t>> sums,
                                         CallContext& context) = 0;
  std::vector<float> reduce_gram(std::size_t columns, std::span<const std::span<const std::uint8_t>> sums, CallContext& context) {
    return reduce_gram(columns, 0, sums, context);
  }
  // `input.weights`, `rows` and `columns` are taken from the loaded projection, which stays as it is.
  virtual RepairedRows repair_rows(const std::string& shard, TensorRole projection, RepairInput input, const RepairOptions& options,
                                   CallContext& context) = 0;
  // The projection's values become those stored, little-endian, of any alignment.
  virtual void replace_weights(const std::string& shard, TensorRole projection, ElementType stored, std::span<const std::uint8_t> bytes,
                               CallContext& context) = 0;
};

struct BackendDescription {
  std::string backend;
  std::string instruction_set;
  std::string gemm;
  std::size_t threads = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual BackendDescription describe() const = 0;
  virtual std::uint64_t memory_used_bytes() const = 0;
  // The most that was in use at a time.
  virtual std::uint64_t memory_peak_bytes() const = 0;
  // The most a session will hold for the workload, which is not empty. Throws InvalidArgument when it contradicts the architecture.
  virtual MemoryPlan plan_session(const Architecture& architecture, Precision precision, const Workload& workload) const = 0;
  // FailedPrecondition when the device has no products of that kind; OutOfMemory when the plan of a workload that is known does not fit.
  virtual std::unique_ptr<BackendSession> open_session(const Architecture& architecture, Precision precision, const Workload& workload) = 0;
  std::unique_ptr<BackendSession> open_session(const Architecture& architecture, Precision precision) {
    return open_session(architecture, precision, Workload{});
  }
  // Floating-point operations a second of dense products, measured now; 0 where there are none of that kind or nothing is known.
  virtual double measure_product_speed(Compute compute, CallContext& context);
  // The allocation on weights given directly.
  virtual AllocatedRows allocate_matrix(const AllocationInput& input, const AllocationOptions& options, CallContext& context) = 0;
};

// Threads ≥ 1. The thread that makes a backend's calls is the first and settles itself, the others are settled here. Throws
// InvalidArgument, and what settle_thread throws.
std::unique_ptr<Backend> create_cpu_backend(std::size_t threads, std::uint64_t memory_budget_bytes, const Placement& placement = {});

}  // namespace secateur
