// The hidden states of a session's groups: on the device as many as were planned, the others in pinned memory of the host.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "cuda/block_runner.h"
#include "cuda/device_buffer.h"
#include "cuda/stream.h"
#include "secateur/backend.h"

namespace secateur::gpu {

// Where the groups of a session live; decided when it is opened. All zero where nothing is known: then each group takes device memory of
// its own.
struct GroupPlaces {
  // Of the hidden states of a group.
  std::size_t values = 0;
  std::size_t on_device = 0;
  std::size_t on_host = 0;

  std::uint64_t device_bytes() const noexcept { return on_device * block_bytes<float>(values); }
  std::uint64_t slot_bytes() const noexcept { return on_host == 0 ? 0 : kSlots * block_bytes<float>(values); }
  std::uint64_t host_bytes() const noexcept { return on_host * block_bytes<float>(values); }

  // Device memory through which groups of the host pass: one is computed with while the next arrives in the other.
  static constexpr std::size_t kSlots = 2;
};

// Groups of the host are copied on a stream of their own, in and out. One stream for both is enough: with two slots the next group arrives
// in the slot that the group before leaves, so that one copy follows the other anyway. Events order copies and computations:
// - a copy into a slot waits for the computations queued before, which may use what the slot had;
// - computations wait for the slot's last copy, in or out: they read what it brings and overwrite what it reads;
// - a copy out waits for the computations that wrote the group.
class HiddenStates {
 public:
  // Takes the memory of the plan. What is given outlives this.
  HiddenStates(SessionMemory& memory, const Stream& compute, std::size_t hidden_size, const GroupPlaces& places);
  // Waits for the copies.
  ~HiddenStates();
  HiddenStates(const HiddenStates&) = delete;
  HiddenStates& operator=(const HiddenStates&) = delete;

  // A group in place of the one that had its index, whose hidden states are for the caller to write. Throws OutOfMemory.
  DeviceGroup create(GroupTokens tokens);
  // The hidden states for what is queued on the stream of computations from here on. The next group of the host begins to arrive. Throws
  // FailedPrecondition when there is no such group.
  DeviceGroup find(std::uint32_t index);
  // What is queued on the stream of computations has written the group.
  void written(std::uint32_t index);
  void erase(std::uint32_t index);

 private:
  struct Group {
    GroupTokens tokens;
    // One of the two.
    DeviceBuffer<float> device;
    PinnedBuffer<float> host;
  };
  struct Slot {
    DeviceBuffer<float> memory;
    std::optional<std::uint32_t> group;
    std::uint64_t last_use = 0;
    Event computed;
    Event copied;
  };

  DeviceBuffer<float> take_device(std::uint32_t index, std::size_t values);
  Slot* slot_of(std::uint32_t index);
  Slot& oldest_slot();
  void fetch(const Group& group, Slot& slot);
  void fetch_next(std::uint32_t index);
  std::uint64_t bytes_of(const Group& group) const { return group.tokens.ids.size() * hidden_size_ * sizeof(float); }

  SessionMemory& memory_;
  const Stream& compute_;
  std::size_t hidden_size_;
  GroupPlaces places_;
  std::map<std::uint32_t, Group> groups_;
  // Of the plan, without a group.
  std::vector<DeviceBuffer<float>> free_on_device_;
  std::vector<PinnedBuffer<float>> free_on_host_;
  // Empty where all groups are on the device.
  std::vector<Slot> slots_;
  std::uint64_t uses_ = 0;
  Stream copies_;
};

}  // namespace secateur::gpu
