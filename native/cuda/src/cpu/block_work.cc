#include "cpu/block_work.h"

#include <algorithm>

namespace secateur::cpu {

namespace {

// Threads' parts begin on cache lines.
constexpr std::size_t kLine = 64;
constexpr std::size_t kLineFloats = kLine / sizeof(float);

std::size_t rounded_up(std::size_t size, std::size_t multiple) { return (size + multiple - 1) / multiple * multiple; }

}  // namespace

WorkSizes::WorkSizes(const Architecture& architecture, std::span<const ProjectionForm> projections, std::size_t group_samples,
                     std::size_t length)
    : samples(group_samples),
      tokens(group_samples * length),
      tiles((length + kTokenTile - 1) / kTokenTile),
      tile_tokens(std::min(kTokenTile, length)),
      attention(attention_layout(length, architecture.head_dimension)),
      copies(ProjectionWorkspace::bytes(projections, tile_tokens)),
      widths{architecture.hidden_size, architecture.query_width(), architecture.hidden_size, architecture.intermediate_size} {
  const std::size_t raised = architecture.feed_forward == FeedForward::kGatedSilu ? 2 : 1;
  const std::size_t tile = tile_tokens * (2 * architecture.hidden_size + raised * architecture.intermediate_size);
  scratch = rounded_up(std::max(tile, attention.total), kLineFloats);
}

template <class T>
T* WorkSpace::take(std::uint8_t* memory, std::size_t size) {
  const std::size_t begin = bytes;
  bytes += rounded_up(size * sizeof(T), kLine);
  return memory == nullptr ? nullptr : reinterpret_cast<T*>(memory + begin);
}

WorkSpace::WorkSpace(const Architecture& architecture, const WorkSizes& sizes, std::size_t threads,
                     const std::optional<Collected>& collected, std::uint8_t* memory)
    : queries(take<float>(memory, sizes.tokens * architecture.query_width())),
      keys(take<float>(memory, sizes.tokens * architecture.key_width())),
      values(take<float>(memory, sizes.tokens * architecture.key_width())),
      attended(take<float>(memory, sizes.tokens * architecture.query_width())),
      scratch(take<float>(memory, threads * sizes.scratch)),
      copies(take<std::uint8_t>(memory, threads * sizes.copies)) {
  if (!collected) return;
  for (std::size_t site = 0; site < kInputSites; ++site) {
    const std::size_t width = sizes.widths[site];
    const std::size_t sums = sizes.samples * sizes.tiles * width;
    tile_sums[site] = take<double>(memory, sums);
    tile_sketches[site] = take<float>(memory, sums * collected->sketches);
    if (collected->gram_sites.contains(static_cast<InputSite>(site))) gram_inputs[site] = take<float>(memory, sizes.tokens * width);
  }
}

std::uint64_t block_work_bytes(const Architecture& architecture, std::span<const ProjectionForm> projections, std::size_t samples,
                               std::size_t sequence_length, std::size_t threads, const std::optional<Collected>& collected) {
  const WorkSizes sizes(architecture, projections, samples, sequence_length);
  return WorkSpace(architecture, sizes, threads, collected, nullptr).bytes;
}

}  // namespace secateur::cpu
