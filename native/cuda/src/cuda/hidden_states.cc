#include "cuda/hidden_states.h"

#include <algorithm>
#include <string>
#include <utility>

namespace secateur::gpu {

HiddenStates::HiddenStates(SessionMemory& memory, const Stream& compute, std::size_t hidden_size, const GroupPlaces& places)
    : memory_(memory), compute_(compute), hidden_size_(hidden_size), places_(places) {
  for (std::size_t i = 0; i < places.on_device; ++i) free_on_device_.emplace_back(memory, places.values, "hidden states");
  if (places.on_host == 0) return;
  for (std::size_t i = 0; i < GroupPlaces::kSlots; ++i) {
    slots_.emplace_back().memory = DeviceBuffer<float>(memory, places.values, "hidden states on their way");
  }
  for (std::size_t i = 0; i < places.on_host; ++i) free_on_host_.emplace_back(memory, places.values, "hidden states");
}

HiddenStates::~HiddenStates() { static_cast<void>(cudaStreamSynchronize(copies_.get())); }

DeviceGroup HiddenStates::create(GroupTokens tokens) {
  const std::uint32_t index = tokens.index;
  erase(index);
  const std::size_t values = tokens.ids.size() * hidden_size_;
  Group group{std::move(tokens), {}, {}};
  // More groups than were planned, as after the loss of a node, join those of the host where there are some.
  const bool on_host = !slots_.empty() && values <= places_.values && free_on_device_.empty();
  if (!on_host) {
    group.device = take_device(index, values);
  } else if (free_on_host_.empty()) {
    group.host = PinnedBuffer<float>(memory_, places_.values, "hidden states of group " + std::to_string(index));
  } else {
    group.host = std::move(free_on_host_.back());
    free_on_host_.pop_back();
  }
  Group& created = groups_.emplace(index, std::move(group)).first->second;
  if (!on_host) return {created.tokens, created.device.data()};
  Slot& slot = oldest_slot();
  slot.group = index;
  slot.last_use = ++uses_;
  slot.copied.hold(compute_);
  return {created.tokens, slot.memory.data()};
}

DeviceBuffer<float> HiddenStates::take_device(std::uint32_t index, std::size_t values) {
  if (values > places_.values || free_on_device_.empty()) {
    return {memory_, values, "hidden states of group " + std::to_string(index)};
  }
  DeviceBuffer<float> memory = std::move(free_on_device_.back());
  free_on_device_.pop_back();
  return memory;
}

DeviceGroup HiddenStates::find(std::uint32_t index) {
  const auto found = groups_.find(index);
  if (found == groups_.end()) {
    throw Error(ErrorCode::kFailedPrecondition, "Group " + std::to_string(index) + " has no hidden states here; embed it first.");
  }
  Group& group = found->second;
  float* hidden = group.device.data();
  if (hidden == nullptr) {
    Slot* slot = slot_of(index);
    if (slot == nullptr) {
      slot = &oldest_slot();
      fetch(group, *slot);
    }
    slot->last_use = ++uses_;
    slot->copied.hold(compute_);
    hidden = slot->memory.data();
  }
  if (!slots_.empty()) fetch_next(index);
  return {group.tokens, hidden};
}

void HiddenStates::written(std::uint32_t index) {
  Slot* const slot = slot_of(index);
  if (slot == nullptr) return;
  Group& group = groups_.at(index);
  slot->computed.record(compute_);
  slot->computed.hold(copies_);
  check(cudaMemcpyAsync(group.host.data(), slot->memory.data(), bytes_of(group), cudaMemcpyDeviceToHost, copies_.get()),
        "copying hidden states to the host");
  slot->copied.record(copies_);
}

void HiddenStates::erase(std::uint32_t index) {
  const auto found = groups_.find(index);
  if (found == groups_.end()) return;
  Group& group = found->second;
  if (group.device.size() == places_.values && !group.device.empty()) free_on_device_.push_back(std::move(group.device));
  if (!group.host.empty()) {
    if (Slot* const slot = slot_of(index)) slot->group.reset();
    // Its copies, which the next owner must not meet.
    copies_.synchronize("copying hidden states");
    free_on_host_.push_back(std::move(group.host));
  }
  groups_.erase(found);
}

HiddenStates::Slot* HiddenStates::slot_of(std::uint32_t index) {
  const auto found = std::ranges::find(slots_, std::optional(index), &Slot::group);
  return found == slots_.end() ? nullptr : &*found;
}

HiddenStates::Slot& HiddenStates::oldest_slot() { return *std::ranges::min_element(slots_, {}, &Slot::last_use); }

void HiddenStates::fetch(const Group& group, Slot& slot) {
  slot.group = group.tokens.index;
  slot.computed.record(compute_);
  slot.computed.hold(copies_);
  check(cudaMemcpyAsync(slot.memory.data(), group.host.data(), bytes_of(group), cudaMemcpyHostToDevice, copies_.get()),
        "copying hidden states to the device");
  slot.copied.record(copies_);
}

// Steps go through the groups in their order, again and again.
void HiddenStates::fetch_next(std::uint32_t index) {
  const auto is_on_host = [](const auto& entry) { return !entry.second.host.empty(); };
  auto next = std::find_if(groups_.upper_bound(index), groups_.end(), is_on_host);
  if (next == groups_.end()) next = std::ranges::find_if(groups_, is_on_host);
  if (next == groups_.end() || next->first == index || slot_of(next->first) != nullptr) return;
  fetch(next->second, oldest_slot());
}

}  // namespace secateur::gpu
