#include "cuda/hidden_states.h"

#include <algorithm>
#include <string>
#include <utility>

#include "cuda/cuda_error.h"
#include "cuda/kernels/elementwise.h"

namespace secateur::gpu {

HiddenStates::HiddenStates(SessionMemory& memory, const Stream& compute, std::size_t hidden_size, const GroupPlaces& places)
    : memory_(memory), compute_(compute), hidden_size_(hidden_size), places_(places) {
  const std::size_t bytes = places.kept_bytes(places.values);
  for (std::size_t i = 0; i < places.on_device; ++i) free_on_device_.emplace_back(memory, bytes, "hidden states");
  if (places.is_narrow()) wide_ = DeviceBuffer<float>(memory, places.values, "hidden states in float32");
  if (places.on_host == 0) return;
  for (std::size_t i = 0; i < GroupPlaces::kSlots; ++i) {
    slots_.emplace_back().memory = DeviceBuffer<std::uint8_t>(memory, bytes, "hidden states on their way");
  }
  for (std::size_t i = 0; i < places.on_host; ++i) free_on_host_.emplace_back(memory, bytes, "hidden states");
}

HiddenStates::~HiddenStates() { static_cast<void>(cudaStreamSynchronize(copies_.get())); }

DeviceGroup HiddenStates::create(GroupTokens tokens) {
  const std::uint32_t index = tokens.index;
  // First: there is no group without its hidden states.
  make_room(values_of(tokens));
  std::uint8_t* const kept = make_place(std::move(tokens));
  return {at(index).tokens, wide(kept)};
}

DeviceGroup HiddenStates::find(std::uint32_t index) {
  Group& group = at(index);
  const std::size_t values = values_of(group.tokens);
  make_room(values);
  std::uint8_t* const kept = place_of(group);
  float* const hidden = wide(kept);
  if (places_.is_narrow()) check(widen(reinterpret_cast<bfloat16*>(kept), hidden, values, compute_.get()), "widening hidden states");
  return {group.tokens, hidden};
}

void HiddenStates::written(std::uint32_t index) {
  if (places_.is_narrow()) {
    Group& group = at(index);
    Slot* const slot = slot_of(index);
    std::uint8_t* const kept = slot == nullptr ? group.device.data() : slot->memory.data();
    check(narrow(wide_.data(), reinterpret_cast<bfloat16*>(kept), values_of(group.tokens), compute_.get()), "narrowing hidden states");
  }
  settle(index);
}

void HiddenStates::save(std::uint32_t index, std::uint8_t* kept) {
  Group& group = at(index);
  check(cudaMemcpyAsync(kept, place_of(group), kept_bytes(group.tokens), cudaMemcpyDeviceToHost, compute_.get()), "saving hidden states");
}

void HiddenStates::restore(GroupTokens tokens, const std::uint8_t* kept) {
  const std::uint32_t index = tokens.index;
  const std::size_t bytes = kept_bytes(tokens);
  std::uint8_t* const place = make_place(std::move(tokens));
  check(cudaMemcpyAsync(place, kept, bytes, cudaMemcpyHostToDevice, compute_.get()), "restoring hidden states");
  settle(index);
}

std::uint8_t* HiddenStates::make_place(GroupTokens tokens) {
  const std::uint32_t index = tokens.index;
  erase(index);
  const std::size_t bytes = kept_bytes(tokens);
  Group group{std::move(tokens), {}, {}};
  // More groups than were planned, as after the loss of a node, join those of the host where there are some.
  const bool on_host = !slots_.empty() && bytes <= places_.kept_bytes(places_.values) && free_on_device_.empty();
  if (!on_host) {
    group.device = take_device(index, bytes);
  } else if (free_on_host_.empty()) {
    group.host = PinnedBuffer<std::uint8_t>(memory_, places_.kept_bytes(places_.values), "hidden states of group " + std::to_string(index));
  } else {
    group.host = std::move(free_on_host_.back());
    free_on_host_.pop_back();
  }
  Group& created = groups_.emplace(index, std::move(group)).first->second;
  if (!on_host) return created.device.data();
  Slot& slot = oldest_slot();
  slot.group = index;
  slot.last_use = ++uses_;
  slot.copied.hold(compute_);
  return slot.memory.data();
}

DeviceBuffer<std::uint8_t> HiddenStates::take_device(std::uint32_t index, std::size_t bytes) {
  if (bytes > places_.kept_bytes(places_.values) || free_on_device_.empty()) {
    return {memory_, bytes, "hidden states of group " + std::to_string(index)};
  }
  DeviceBuffer<std::uint8_t> memory = std::move(free_on_device_.back());
  free_on_device_.pop_back();
  return memory;
}

void HiddenStates::make_room(std::size_t values) {
  if (!places_.is_narrow() || wide_.size() >= values) return;
  // Larger than any that was planned.
  DeviceBuffer<float> larger(memory_, values, "hidden states in float32");
  wait_for_narrowing();
  wide_ = std::move(larger);
}

float* HiddenStates::wide(std::uint8_t* kept) { return places_.is_narrow() ? wide_.data() : reinterpret_cast<float*>(kept); }

void HiddenStates::wait_for_narrowing() const { compute_.synchronize("narrowing hidden states"); }

HiddenStates::Group& HiddenStates::at(std::uint32_t index) {
  const auto found = groups_.find(index);
  if (found == groups_.end()) {
    throw Error(ErrorCode::kFailedPrecondition, "Group " + std::to_string(index) + " has no hidden states here; embed it first.");
  }
  return found->second;
}

std::uint8_t* HiddenStates::place_of(Group& group) {
  const std::uint32_t index = group.tokens.index;
  std::uint8_t* place = group.device.data();
  if (place == nullptr) {
    Slot* slot = slot_of(index);
    if (slot == nullptr) {
      slot = &oldest_slot();
      fetch(group, *slot);
    }
    slot->last_use = ++uses_;
    slot->copied.hold(compute_);
    place = slot->memory.data();
  }
  if (!slots_.empty()) fetch_next(index);
  return place;
}

void HiddenStates::settle(std::uint32_t index) {
  Slot* const slot = slot_of(index);
  if (slot == nullptr) return;
  Group& group = at(index);
  slot->computed.record(compute_);
  slot->computed.hold(copies_);
  check(cudaMemcpyAsync(group.host.data(), slot->memory.data(), kept_bytes(group.tokens), cudaMemcpyDeviceToHost, copies_.get()),
        "copying hidden states to the host");
  slot->copied.record(copies_);
}

void HiddenStates::erase(std::uint32_t index) {
  const auto found = groups_.find(index);
  if (found == groups_.end()) return;
  Group& group = found->second;
  if (!group.device.empty()) {
    if (group.device.size() == places_.kept_bytes(places_.values)) {
      free_on_device_.push_back(std::move(group.device));
    } else if (places_.is_narrow()) {
      // Else the memory might get a shard, which arrives by another stream.
      wait_for_narrowing();
    }
  }
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
  check(cudaMemcpyAsync(slot.memory.data(), group.host.data(), kept_bytes(group.tokens), cudaMemcpyHostToDevice, copies_.get()),
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
