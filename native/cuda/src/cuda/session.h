// A job's weights and hidden states on a GPU.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "cuda/block_runner.h"
#include "cuda/device_shard.h"
#include "cuda/stream.h"
#include "secateur/backend.h"

namespace secateur::gpu {

// Device memory of measuring a group's loss, besides the head and the hidden states.
std::uint64_t loss_bytes(const Architecture& architecture, std::size_t samples, std::size_t sequence_length);

// Shards are uploaded on a stream of their own, beside whatever is computed; every call that gives a result waits for the device once, at
// its end.
class CudaSession final : public BackendSession {
 public:
  // Throws InvalidArgument when the architecture contradicts itself. The budget and the library outlive the session.
  CudaSession(const Architecture& architecture, Compute compute, MemoryBudget& budget, MatrixLibrary& products);

  void load_shard(const std::string& shard, std::span<const TensorView> tensors, CallContext& context) override;
  void release_shard(const std::string& shard) override;
  void embed(const std::string& shard, GroupTokens tokens, CallContext& context) override;
  std::vector<SiteStatistics> collect_statistics(const std::string& shard, std::uint32_t group, CallContext& context) override;
  void propagate(const std::string& shard, std::uint32_t group, CallContext& context) override;
  std::vector<double> measure_loss(const std::string& shard, std::uint32_t group, std::span<const TokenRange> ranges,
                                   CallContext& context) override;
  std::vector<float> last_logits(const std::string& shard, std::uint32_t group, CallContext& context) override;
  AllocatedRows allocate_rows(const std::string& shard, TensorRole projection, AllocationInput input, const AllocationOptions& options,
                              CallContext& context) override;
  void apply_mask(const std::string& shard, TensorRole projection, std::span<const std::uint8_t> mask, CallContext& context) override;
  void release_group(std::uint32_t group) override;

 private:
  DeviceShard& find_shard(const std::string& name, ShardKind kind);
  DeviceGroup& find_group(std::uint32_t index);
  template <class Work>
  auto guarded(const Work& work);

  Architecture architecture_;
  Compute compute_;
  MemoryBudget& budget_;
  Stream stream_;
  Stream upload_;
  Timeline timeline_;
  BlockRunner blocks_;
  std::map<std::string, std::unique_ptr<DeviceShard>> shards_;
  std::map<std::uint32_t, DeviceGroup> groups_;
};

}  // namespace secateur::gpu
