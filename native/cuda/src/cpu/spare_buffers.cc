#include "cpu/spare_buffers.h"

#include <algorithm>
#include <utility>

namespace secateur::cpu {

Buffer<float> SpareBuffers::take(MemoryBudget& budget, std::size_t size, const std::string& purpose) {
  const auto found = std::ranges::find(buffers_, size, &Buffer<float>::size);
  if (found == buffers_.end()) return {budget, size, purpose};
  Buffer<float> buffer = std::move(*found);
  buffers_.erase(found);
  return buffer;
}

void SpareBuffers::keep_only_for(std::span<const TensorView> tensors) {
  std::erase_if(buffers_, [&](const Buffer<float>& buffer) {
    return std::ranges::none_of(tensors, [&](const TensorView& tensor) { return elements_of(tensor) == buffer.size(); });
  });
}

}  // namespace secateur::cpu
