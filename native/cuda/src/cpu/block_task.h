// One run of a block over the samples of a calibration group.
#pragma once

#include <array>
#include <cstddef>
#include <optional>

#include "cpu/block_work.h"
#include "cpu/repair/product_sums.h"
#include "cpu/shard.h"
#include "cpu/state_buffer.h"
#include "secateur/backend.h"

namespace secateur::cpu {

// How far the hidden states of a group came through a block when a run ended midway, for the next run to go on from there: in stages each
// run ends where its stage prunes.
struct BlockProgress {
  enum class Place { kStart, kAttended, kHalfway };

  // [tokens, hidden]: at kAttended what attention gives, at kHalfway the hidden states between the halves of the block. Empty in sessions
  // that keep none.
  Buffer<float> values;
  const Shard* block = nullptr;
  Place place = Place::kStart;

  bool is_kept() const noexcept { return !values.empty(); }
};

// For how many tokens a session keeps progress, in each of its streams; none but in jobs of stages with room for it.
struct ProgressRoom {
  std::size_t tokens = 0;
  // What hidden states of groups beyond those tokens may take.
  std::uint64_t spare_bytes = 0;
};

// Hidden states [samples, sequence_length, hidden] and token ids of a group.
struct Group {
  GroupTokens tokens;
  StateBuffer hidden;
  // Of the dense model, where targets are made from them.
  std::optional<StateBuffer> dense = std::nullopt;
  BlockProgress progress = {};
  BlockProgress dense_progress = {};
};

// Sums that inputs are added to, or null; those of the samples that are held out, which may be the same.
struct GramTarget {
  ProductSums* sums = nullptr;
  ProductSums* held_out = nullptr;
  // How far the inputs, and the hidden states that the outputs are added to, are from those of the dense model; or null.
  ProductSums* drift = nullptr;
};

// By site.
using GramTargets = std::array<GramTarget, kInputSites>;

// What a run reads, and what it fills.
struct BlockTask {
  const Shard& block;
  const Group& group;
  CallContext& context;
  // Set when the block's output is wanted; may be the group's own hidden states.
  StateBuffer* output = nullptr;
  // Statistics are wanted of these; without an output the block runs to the last of them.
  InputSites sites = {};
  // What the inputs of wanted sites are added to.
  GramTargets grams = {};
  // Of each sample; 0 for its last inputs.
  std::size_t sketches = 0;
  // The hidden states of the dense model pass through the block as it was loaded; nothing is collected.
  bool dense = false;
  // Where the run may begin, and what the next one may begin with; or null.
  BlockProgress* progress = nullptr;
  // Where the drift of wanted sites is found, or null: what the dense model has is put there, what the pruned one has is taken off.
  std::array<float*, kInputSites> drift = {};

  const StateBuffer& states() const { return dense ? *group.dense : group.hidden; }
  const Projection& projection(TensorRole role) const { return dense ? block.dense_projection(role) : block.projection(role); }
  std::size_t samples() const { return group.tokens.samples; }
  std::size_t length() const { return group.tokens.sequence_length; }
  // Nothing behind the site is wanted.
  bool ends_at(InputSite site) const { return output == nullptr && sites.end_at(site); }
  // Where the run before ended, unless something is wanted that lies before it.
  BlockProgress::Place begin() const {
    using enum BlockProgress::Place;
    if (progress == nullptr || progress->block != &block || sites.contains(InputSite::kAttentionInput)) return kStart;
    return progress->place == kHalfway && sites.contains(InputSite::kAttentionOutput) ? kStart : progress->place;
  }
  // Where the next one may begin. One with an output leaves a block behind.
  BlockProgress::Place end() const {
    using enum BlockProgress::Place;
    if (output != nullptr || ends_at(InputSite::kAttentionInput)) return kStart;
    return ends_at(InputSite::kAttentionOutput) ? kAttended : kHalfway;
  }
  bool collects(InputSite site) const { return !dense && sites.contains(site); }
  // Nothing where nothing is collected.
  std::optional<Collected> collected() const {
    if (sites.empty() || dense) return std::nullopt;
    Collected wanted{sketches};
    for (std::size_t site = 0; site < kInputSites; ++site) {
      if (grams[site].sums != nullptr) wanted.gram_sites.add(static_cast<InputSite>(site));
    }
    return wanted;
  }
};

// Neighbouring tokens of one sample.
struct TokenTile {
  std::size_t sample;
  // Of the sample.
  std::size_t index;
  // Of the first token: in the sample, in the group.
  std::size_t position;
  std::size_t first;
  std::size_t count;
};

}  // namespace secateur::cpu
