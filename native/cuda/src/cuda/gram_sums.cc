#include "cuda/gram_sums.h"

#include <algorithm>
#include <utility>

#include "common/shard_layout.h"
#include "cuda/transfers.h"

namespace secateur::gpu {

std::uint64_t gram_sums_bytes(const Architecture& architecture, InputSites sites, bool hold_out, bool drift) {
  std::uint64_t bytes = 0;
  for (std::size_t index = 0; index < std::size(kInputSiteNames); ++index) {
    const auto site = static_cast<InputSite>(index);
    if (!sites.contains(site)) continue;
    bytes += (hold_out ? 2 : 1) * block_bytes<double>(product_values(gram_shape(input_width(architecture, site))));
    if (drift) bytes += block_bytes<double>(product_values(drift_shape(architecture, site)));
  }
  return bytes;
}

GramTargets GramSums::targets(const std::string& shard, End end, std::uint32_t group, InputSites sites, GramSites wanted, bool drift) {
  std::map<InputSite, State>& states = states_[shard];
  GramTargets targets = {};
  for (std::size_t index = 0; index < targets.size(); ++index) {
    const auto site = static_cast<InputSite>(index);
    if (!sites.contains(site) || !wanted.sites.contains(site)) continue;
    auto found = states.find(site);
    if (found == states.end()) {
      const std::string name = name_of(site);
      const ProductShape gram = gram_shape(input_width(architecture_, site));
      State state;
      state.sums = make_sums(gram, "the Gram matrix of the " + name, end);
      if (wanted.hold_out) state.held_out = make_sums(gram, "the Gram matrix of the " + name, end);
      if (drift) state.drift = make_sums(drift_shape(architecture_, site), "the drift of the " + name, end);
      found = states.emplace(site, std::move(state)).first;
    }
    State& state = found->second;
    if (state.held_out.empty() == wanted.hold_out) {
      throw Error(ErrorCode::kInvalidArgument, "All groups of a block hold samples out, or none.");
    }
    if (std::ranges::find(state.groups, group) != state.groups.end()) continue;
    targets[index] = {state.sums.data(), wanted.hold_out ? state.held_out.data() : state.sums.data(), state.drift.data()};
  }
  return targets;
}

void GramSums::added(const std::string& shard, std::uint32_t group, const GramTargets& targets) {
  for (std::size_t index = 0; index < targets.size(); ++index) {
    if (targets[index].sums != nullptr) states_.at(shard).at(static_cast<InputSite>(index)).groups.push_back(group);
  }
}

GramPart GramSums::take(const std::string& shard, InputSite site) {
  const auto of_shard = states_.find(shard);
  if (of_shard == states_.end()) return {};
  const auto found = of_shard->second.find(site);
  if (found == of_shard->second.end()) return {};
  State& state = found->second;
  GramPart part{std::move(state.groups), content_of(state.sums), content_of(state.held_out), content_of(state.drift)};
  stream_.synchronize("Reading sums");
  of_shard->second.erase(found);
  return part;
}

DeviceBuffer<double> GramSums::make_sums(const ProductShape& shape, const std::string& purpose, End end) {
  DeviceBuffer<double> sums(memory_, product_values(shape), purpose, end);
  check(cudaMemsetAsync(sums.data(), 0, sums.size() * sizeof(double), stream_.get()), "clearing sums");
  return sums;
}

std::vector<std::uint8_t> GramSums::content_of(const DeviceBuffer<double>& sums) {
  std::vector<std::uint8_t> content(sums.size() * sizeof(double));
  download(reinterpret_cast<const std::uint8_t*>(sums.data()), content, stream_, "reading sums");
  return content;
}

}  // namespace secateur::gpu
