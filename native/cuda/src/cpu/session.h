// A job's weights and hidden states on the CPU.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cpu/block.h"
#include "cpu/repair/product_sums.h"
#include "cpu/shard.h"
#include "secateur/backend.h"

namespace secateur::cpu {

class CpuSession final : public BackendSession {
 public:
  // Throws InvalidArgument when the architecture contradicts itself. The budget and the pool outlive the session.
  CpuSession(const Architecture& architecture, Precision precision, bool dense_targets, ProgressRoom progress, MemoryBudget& budget,
             ThreadPool& pool);

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
  OutlierCount count_outliers(const std::string& shard, std::span<const ProjectionInputSquares> projections, double threshold,
                              CallContext& context) override;
  std::vector<BlockSensitivity> measure_sensitivity(const std::string& shard, std::span<const std::uint32_t> groups,
                                                    std::span<const ProjectionInputSquares> projections, double sparsity,
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
  void prepare_block_run();
  Shard& find_shard(const std::string& name, ShardKind kind);
  Group& find_group(std::uint32_t index);
  // A group whose hidden states are for the caller to write, in place of the one that had its index.
  Group& create_group(GroupTokens tokens);
  // A projection of a block that is about to change.
  Projection& find_changing(const std::string& shard, TensorRole projection, CallContext& context);
  // For a group of so many tokens that comes to the others. Groups that were not planned have none, and the others no more when the memory
  // is needed for hidden states.
  bool has_room_for_progress(std::size_t tokens);
  // Forgets how far groups came through the block, where that place lies behind what changes.
  void forget_progress(const Shard& block, TensorRole changing);
  template <class Propagate>
  void move_on(std::uint32_t group, Propagate propagate);

  // What groups add to a Gram matrix.
  struct GramState {
    ProductSums sums;
    std::optional<ProductSums> held_out;
    std::optional<ProductSums> drift;
    std::vector<std::uint32_t> groups;
  };

  Architecture architecture_;
  Precision precision_;
  bool dense_targets_;
  ProgressRoom progress_;
  MemoryBudget& budget_;
  ThreadPool& pool_;
  BlockRunner blocks_;
  std::map<std::string, std::unique_ptr<Shard>> shards_;
  // Of the block that was released last.
  SpareBuffers spare_;
  std::map<std::uint32_t, Group> groups_;
  // By block and site.
  std::map<std::string, std::map<InputSite, GramState>> gram_states_;
  // The allocator may keep what an allocation has freed.
  bool freed_memory_kept_ = false;
};

}  // namespace secateur::cpu
