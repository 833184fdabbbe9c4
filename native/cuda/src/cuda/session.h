// A job's weights and hidden states on a GPU.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "cuda/block_runner.h"
#include "cuda/device_shard.h"
#include "cuda/gram_sums.h"
#include "cuda/hidden_states.h"
#include "cuda/memory_plan.h"
#include "cuda/stream.h"
#include "secateur/backend.h"
#include "secateur/thread_pool.h"

namespace secateur::gpu {

// Device memory of measuring a group's loss, besides the head and the hidden states.
std::uint64_t loss_bytes(const Architecture& architecture, std::size_t samples, std::size_t sequence_length);
// Of its results, on the device and again in pinned memory.
std::uint64_t loss_result_bytes(std::size_t samples, std::size_t sequence_length);
// Device memory of embedding a group, besides the embedding and the hidden states.
std::uint64_t embedding_bytes(const Architecture& architecture, std::size_t samples, std::size_t sequence_length);

// Memory is taken when the session is opened, as planned; what the plan does not know is taken later, within the budget. What is kept - the
// hidden states, the work space - lies at the low end of the device memory. Of what remains, the two shards there are at a time lie at
// one end each, so that what is free is one range between them, in which the next shard finds its place once the one at its end is gone,
// and in which a call finds the memory for its own results, which is free again when it ends: what was planned fits, however large each
// shard is.
//
// Shards are uploaded on a stream of their own, beside whatever is computed; every call that gives a result waits for the device once, at
// its end.
class CudaSession final : public BackendSession {
 public:
  // Throws InvalidArgument when the architecture contradicts itself, and OutOfMemory when the device has less than the plan takes. What is
  // in use is counted besides the budget. Both, the library and the pool, for what is done on the host, outlive the session.
  CudaSession(const Architecture& architecture, Precision precision, MemoryBudget& budget, MemoryBudget& in_use, MatrixLibrary& products,
              ThreadPool& pool, const std::optional<SessionPlan>& plan);

  using BackendSession::load_shard;
  void load_shard(const std::string& shard, std::span<const TensorView> tensors, std::size_t attention_window,
                  CallContext& context) override;
  void release_shard(const std::string& shard) override;
  void embed(const std::string& shard, GroupTokens tokens, CallContext& context) override;
  using BackendSession::collect_statistics;
  std::vector<SiteStatistics> collect_statistics(const std::string& shard, std::uint32_t group, InputSites sites, std::size_t sketches,
                                                 CallContext& context) override;
  void propagate(const std::string& shard, std::uint32_t group, CallContext& context) override;
  void propagate_dense(const std::string& shard, std::uint32_t group, CallContext& context) override;
  std::vector<double> measure_loss(const std::string& shard, std::uint32_t group, std::span<const TokenRange> ranges,
                                   CallContext& context) override;
  std::vector<float> last_logits(const std::string& shard, std::uint32_t group, CallContext& context) override;
  AllocatedRows allocate_rows(const std::string& shard, TensorRole projection, AllocationInput input, const AllocationOptions& options,
                              CallContext& context) override;
  std::vector<BlockSensitivity> measure_sensitivity(const std::string& shard, std::span<const std::uint32_t> groups,
                                                    std::span<const ProjectionInputSquares> projections, double sparsity,
                                                    CallContext& context) override;
  OutlierCount count_outliers(const std::string& shard, std::span<const ProjectionInputSquares> projections, double threshold,
                              CallContext& context) override;
  std::vector<double> eigenvalues(const std::string& shard, TensorRole projection, CallContext& context) override;
  void apply_mask(const std::string& shard, TensorRole projection, std::span<const std::uint8_t> mask, CallContext& context) override;
  void release_group(std::uint32_t group) override;
  std::vector<std::uint8_t> save_hidden_states(std::uint32_t group, CallContext& context) override;
  void restore_hidden_states(GroupTokens tokens, std::span<const std::uint8_t> saved, CallContext& context) override;
  using BackendSession::collect_with_gram;
  using BackendSession::reduce_gram;
  std::vector<SiteStatistics> collect_with_gram(const std::string& shard, std::uint32_t group, InputSites sites, GramSites wanted,
                                                std::size_t sketches, CallContext& context) override;
  GramPart take_gram_sums(const std::string& shard, InputSite site) override;
  std::vector<float> reduce_gram(std::size_t columns, std::size_t drift_rows, std::span<const std::span<const std::uint8_t>> sums,
                                 CallContext& context) override;
  RepairedRows repair_rows(const std::string& shard, TensorRole projection, RepairInput input, const RepairOptions& options,
                           CallContext& context) override;
  void replace_weights(const std::string& shard, TensorRole projection, ElementType stored, std::span<const std::uint8_t> bytes,
                       CallContext& context) override;

 private:
  DeviceShard& find_shard(const std::string& name, ShardKind kind);
  End free_end() const;
  template <class Work>
  auto guarded(const Work& work);
  void move_on(DeviceShard& block, std::uint32_t group, bool dense, CallContext& context);
  // What the head's weight takes of hidden states [tokens, hidden]; scratch: tokens · (hidden size + embedding size), which it may lie in.
  const float* make_head_input(DeviceShard& head, const float* hidden, std::size_t tokens, float* scratch);

  Architecture architecture_;
  Compute compute_;
  SessionMemory memory_;
  ThreadPool& pool_;
  Stream stream_;
  Stream upload_;
  Timeline timeline_;
  BlockRunner blocks_;
  std::map<std::string, std::unique_ptr<DeviceShard>> shards_;
  MatrixLibrary& products_;
  HiddenStates groups_;
  // Of the dense model, where targets are made from them.
  std::optional<HiddenStates> dense_groups_;
  GramSums grams_;
  // Of the host, for sums that are added up; not limited.
  MemoryBudget host_memory_{UINT64_MAX};
};

}  // namespace secateur::gpu
