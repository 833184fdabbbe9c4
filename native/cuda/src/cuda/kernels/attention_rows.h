// What the kernels of attention read: rows of queries, keys or values of one head.
#pragma once

#include "cuda/gpu.h"

namespace secateur::gpu {

template <class Element>
struct HeadRows {
  const Element* first;
  std::size_t stride;
  std::size_t count;
  unsigned size;
  // Pieces of all rows begin at multiples of 16 bytes.
  bool aligned;
};

// Piece: elements that are copied at a time.
template <unsigned Piece, class Element>
__device__ inline HeadRows<Element> rows_of(const Element* values, std::size_t heads, std::size_t head, std::size_t sample,
                                            std::size_t length, std::size_t size) {
  return {values + (sample * length * heads + head) * size, heads * size, length, static_cast<unsigned>(size),
          reinterpret_cast<std::uintptr_t>(values) % 16 == 0 && size % Piece == 0};
}

}  // namespace secateur::gpu
