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

// Where the groups of a session live, and as what; decided when it is opened. No places where nothing is known: then each group takes
// device memory of its own.
struct GroupPlaces {
  secateur::HiddenStates type = secateur::HiddenStates::kF32;
  // Of the hidden states of a group.
  std::size_t values = 0;
  std::size_t on_device = 0;
  std::size_t on_host = 0;

  bool is_narrow() const noexcept { return type == secateur::HiddenStates::kBF16; }
  // As hidden states are kept, of so many values.
  std::size_t kept_bytes(std::size_t count) const noexcept { return count * (is_narrow() ? sizeof(std::uint16_t) : sizeof(float)); }
  std::uint64_t group_bytes() const noexcept { return block_bytes<std::uint8_t>(kept_bytes(values)); }
  std::uint64_t device_bytes() const noexcept { return on_device * group_bytes(); }
  std::uint64_t slot_bytes() const noexcept { return on_host == 0 ? 0 : kSlots * group_bytes(); }
  std::uint64_t host_bytes() const noexcept { return on_host * group_bytes(); }
  // Of the float32 that bfloat16 is widened into to be computed with.
  std::uint64_t wide_bytes() const noexcept { return is_narrow() ? block_bytes<float>(values) : 0; }

  // Device memory through which groups of the host pass: one is computed with while the next arrives in the other.
  static constexpr std::size_t kSlots = 2;
};

// Groups of the host are copied on a stream of their own, in and out. One stream for both is enough: with two slots the next group arrives
// in the slot that the group before leaves, so that one copy follows the other anyway. Events order copies and computations:
// - a copy into a slot waits for the computations queued before, which may use what the slot had;
// - computations wait for the slot's last copy, in or out: they read what it brings and overwrite what it reads;
// - a copy out waits for the computations that wrote the group.
// Computations work on float32: on what is kept, or on a copy that bfloat16 is widened into and narrowed from, one for all groups.
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
  // The hidden states for what is queued on the stream of computations until another group is asked for. The next group of the host begins
  // to arrive. Throws FailedPrecondition when there is no such group.
  DeviceGroup find(std::uint32_t index);
  // What is queued on the stream of computations has written the group that was asked for last.
  void written(std::uint32_t index);
  void erase(std::uint32_t index);

  // Of the hidden states of a group, as they are kept. Throws as find does.
  std::size_t kept_bytes(std::uint32_t index) { return kept_bytes(at(index).tokens); }
  std::size_t kept_bytes(const GroupTokens& tokens) const { return places_.kept_bytes(values_of(tokens)); }
  // Copies hidden states as they are kept to the host, or makes a group of such; queued on the stream of computations. Throw as find and
  // create.
  void save(std::uint32_t index, std::uint8_t* kept);
  void restore(GroupTokens tokens, const std::uint8_t* kept);

 private:
  // Bytes are of what is kept.
  struct Group {
    GroupTokens tokens;
    // One of the two.
    DeviceBuffer<std::uint8_t> device;
    PinnedBuffer<std::uint8_t> host;
  };
  struct Slot {
    DeviceBuffer<std::uint8_t> memory;
    std::optional<std::uint32_t> group;
    std::uint64_t last_use = 0;
    Event computed;
    Event copied;
  };

  // Of what is kept: on the device, for what is queued on the stream of computations.
  std::uint8_t* make_place(GroupTokens tokens);
  std::uint8_t* place_of(Group& group);
  Group& at(std::uint32_t index);
  DeviceBuffer<std::uint8_t> take_device(std::uint32_t index, std::size_t bytes);
  // For so many values as float32. Throws OutOfMemory.
  void make_room(std::size_t values);
  // What is kept as float32: itself, or the room for it.
  float* wide(std::uint8_t* kept);
  // A call that has written a group queues that behind what it waits for.
  void wait_for_narrowing() const;
  // What was written at its place goes to the host, where the group lives there.
  void settle(std::uint32_t index);
  Slot* slot_of(std::uint32_t index);
  Slot& oldest_slot();
  void fetch(const Group& group, Slot& slot);
  void fetch_next(std::uint32_t index);
  std::size_t values_of(const GroupTokens& tokens) const { return tokens.ids.size() * hidden_size_; }

  SessionMemory& memory_;
  const Stream& compute_;
  std::size_t hidden_size_;
  GroupPlaces places_;
  std::map<std::uint32_t, Group> groups_;
  // Of the plan, without a group.
  std::vector<DeviceBuffer<std::uint8_t>> free_on_device_;
  std::vector<PinnedBuffer<std::uint8_t>> free_on_host_;
  // Empty where all groups are on the device.
  std::vector<Slot> slots_;
  std::uint64_t uses_ = 0;
  // Empty where float32 is kept.
  DeviceBuffer<float> wide_;
  Stream copies_;
};

}  // namespace secateur::gpu
