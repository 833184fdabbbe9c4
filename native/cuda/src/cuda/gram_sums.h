// What the groups of a session add to the Gram matrices of the inputs of blocks, and to their drift, on the device.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "cuda/block_runner.h"
#include "cuda/device_buffer.h"
#include "cuda/stream.h"
#include "secateur/backend.h"

namespace secateur::gpu {

// Device memory of the sums of those sites; the drift is summed up in sessions with dense targets.
std::uint64_t gram_sums_bytes(const Architecture& architecture, InputSites sites, bool hold_out, bool drift);

class GramSums {
 public:
  // All outlive this.
  GramSums(const Architecture& architecture, SessionMemory& memory, const Stream& stream)
      : architecture_(architecture), memory_(memory), stream_(stream) {}

  // Where a group's inputs are to be added: of wanted sites among `sites` that do not have the group yet. Sums begin at 0, in memory from
  // that end. Throws OutOfMemory, and InvalidArgument when the groups of a block do not all hold samples out, or none.
  GramTargets targets(const std::string& shard, End end, std::uint32_t group, InputSites sites, GramSites wanted, bool drift);
  // The group's inputs were added there.
  void added(const std::string& shard, std::uint32_t group, const GramTargets& targets);
  // Waits for the device.
  GramPart take(const std::string& shard, InputSite site);
  void forget(const std::string& shard) { states_.erase(shard); }

 private:
  struct State {
    DeviceBuffer<double> sums;
    DeviceBuffer<double> held_out;
    DeviceBuffer<double> drift;
    std::vector<std::uint32_t> groups;
  };

  DeviceBuffer<double> make_sums(const ProductShape& shape, const std::string& purpose, End end);
  std::vector<std::uint8_t> content_of(const DeviceBuffer<double>& sums);

  const Architecture& architecture_;
  SessionMemory& memory_;
  const Stream& stream_;
  // By block and site.
  std::map<std::string, std::map<InputSite, State>> states_;
};

}  // namespace secateur::gpu
