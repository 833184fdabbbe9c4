#include "cpu/attention.h"

#include <algorithm>

#include "cpu/pair_math.h"
#include "cpu/vector_math.h"

namespace secateur::cpu {

namespace {

constexpr std::size_t kLineFloats = 16;

std::size_t rounded_up(std::size_t size, std::size_t multiple) { return (size + multiple - 1) / multiple * multiple; }

std::size_t first_visible(std::size_t position, std::size_t window) { return position < window ? 0 : position + 1 - window; }

}  // namespace

AttentionLayout attention_layout(std::size_t sequence_length, std::size_t size) {
  AttentionLayout layout{};
  layout.padded_length = rounded_up(sequence_length, kKeyPanel);
  layout.padded_size = rounded_up(size, kLineFloats);
  layout.keys = 0;
  layout.values = layout.keys + layout.padded_length * size;
  layout.queries = layout.values + sequence_length * layout.padded_size;
  layout.scores = layout.queries + rounded_up(kQueryTile * size, kLineFloats);
  layout.sums = layout.scores + kQueryTile * layout.padded_length;
  layout.total = layout.sums + kQueryTile * layout.padded_size;
  return layout;
}

void attend(const AttentionHead& head, std::size_t sequence_length, bool bf16, const AttentionLayout& layout, float* scratch) {
  const auto attend_so = bf16 && pair_math() != nullptr ? pair_math()->attend : vector_math().attend;
  attend_so(head, sequence_length, layout, scratch);
}

double attention_flops(std::size_t sequence_length, std::size_t size, std::size_t window) {
  double products = 0;
  for (std::size_t begin = 0; begin < sequence_length; begin += kQueryTile) {
    const std::size_t queries = std::min(kQueryTile, sequence_length - begin);
    const std::size_t first = first_visible(begin, window) / kKeyPanel * kKeyPanel;
    products += static_cast<double>(queries) * static_cast<double>(begin + queries - first);
  }
  return 4.0 * products * static_cast<double>(size);
}

}  // namespace secateur::cpu
