// A job's weights and hidden states on the CPU.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "cpu/block.h"
#include "cpu/shard.h"
#include "secateur/backend.h"

namespace secateur::cpu {

class CpuSession final : public BackendSession {
 public:
  // Throws InvalidArgument when the architecture contradicts itself. The budget and the pool outlive the session.
  CpuSession(const Architecture& architecture, Precision precision, MemoryBudget& budget, ThreadPool& pool);

  using BackendSession::collect_statistics;
  using BackendSession::load_shard;
  void load_shard(const std::string& shard, std::span<const TensorView> tensors, std::size_t attention_window,
                  CallContext& context) override;
  void release_shard(const std::string& shard) override;
  void embed(const std::string& shard, GroupTokens tokens, CallContext& context) override;
  std::vector<SiteStatistics> collect_statistics(const std::string& shard, std::uint32_t group, std::size_t sketches,
                                                 CallContext& context) override;
  void propagate(const std::string& shard, std::uint32_t group, CallContext& context) override;
  std::vector<double> measure_loss(const std::string& shard, std::uint32_t group, std::span<const TokenRange> ranges,
                                   CallContext& context) override;
  std::vector<float> last_logits(const std::string& shard, std::uint32_t group, CallContext& context) override;
  AllocatedRows allocate_rows(const std::string& shard, TensorRole projection, AllocationInput input, const AllocationOptions& options,
                              CallContext& context) override;
  void apply_mask(const std::string& shard, TensorRole projection, std::span<const std::uint8_t> mask, CallContext& context) override;
  void release_group(std::uint32_t group) override;

 private:
  Shard& find_shard(const std::string& name, ShardKind kind);
  Group& find_group(std::uint32_t index);

  Architecture architecture_;
  Precision precision_;
  MemoryBudget& budget_;
  ThreadPool& pool_;
  BlockRunner blocks_;
  std::map<std::string, std::unique_ptr<Shard>> shards_;
  std::map<std::uint32_t, Group> groups_;
  // The allocator may keep what an allocation has freed.
  bool freed_memory_kept_ = false;
};

}  // namespace secateur::cpu
