// A model of the instructions of src/cuda/tensor_core.h. Products of 16-bit values are exact in float32; the sum of a fragment's 16
// products is added in ascending order. Hardware adds them in an order of its own: results agree within rounding, not bit for bit.
#pragma once

#include <type_traits>

#include "cuda_on_host.h"

namespace secateur::cuda_on_host {

// What a lane holds of the two matrices of mma.m16n8k16.
struct MatrixFragments {
  unsigned left[4];
  unsigned right[2];
};

// Rounded to nearest even; a NaN is the canonical one.
std::uint16_t bfloat16_bits(float value);
std::uint16_t float16_bits(float value);

// What the 16 bits of an element of a fragment are.
enum class FragmentType { kBF16, kF16 };

// Adds to the four elements that the lane holds of the sums.
void add_products(FragmentType type, float (&sums)[4], const LaneValues& fragments, unsigned lane);

}  // namespace secateur::cuda_on_host

namespace secateur::gpu {

struct bfloat16;

inline void copy_async_16(void* shared, const void* global, unsigned bytes) {
  cuda_on_host::Block::current().copy_async(shared, global, bytes);
}

inline void copy_async_commit() { cuda_on_host::Block::current().commit_copies(); }

template <int Pending>
void copy_async_wait() {
  cuda_on_host::Block::current().await_copies(Pending);
}

namespace detail {

// Row `row` of matrix `matrix`, whose address that lane gave.
inline const std::uint16_t* row_of(const cuda_on_host::LaneValues& addresses, unsigned matrix, unsigned row) {
  return cuda_on_host::value_of<const std::uint16_t*>(addresses, matrix * 8 + row);
}

inline unsigned pack(std::uint16_t low, std::uint16_t high) { return static_cast<unsigned>(low) | static_cast<unsigned>(high) << 16; }

}  // namespace detail

inline void load_matrices(unsigned (&fragments)[4], const void* shared_row, SECATEUR_CALL_PLACE) {
  using namespace cuda_on_host;
  const LaneValues& addresses = exchange(0xffffffffU, shared_row, Exchange::kMatrix, file, line);
  const unsigned lane = current_lane();
  for (unsigned matrix = 0; matrix < 4; ++matrix) {
    const std::uint16_t* const row = detail::row_of(addresses, matrix, lane / 4);
    fragments[matrix] = detail::pack(row[lane % 4 * 2], row[lane % 4 * 2 + 1]);
  }
}

inline void load_matrices_transposed(unsigned (&fragments)[4], const void* shared_row, SECATEUR_CALL_PLACE) {
  using namespace cuda_on_host;
  const LaneValues& addresses = exchange(0xffffffffU, shared_row, Exchange::kMatrix, file, line);
  const unsigned lane = current_lane();
  for (unsigned matrix = 0; matrix < 4; ++matrix) {
    fragments[matrix] = detail::pack(detail::row_of(addresses, matrix, lane % 4 * 2)[lane / 4],
                                     detail::row_of(addresses, matrix, lane % 4 * 2 + 1)[lane / 4]);
  }
}

template <class Narrow>
unsigned narrow_pair(float low, float high) {
  if constexpr (std::is_same_v<Narrow, bfloat16>) {
    return detail::pack(cuda_on_host::bfloat16_bits(low), cuda_on_host::bfloat16_bits(high));
  } else {
    return detail::pack(cuda_on_host::float16_bits(low), cuda_on_host::float16_bits(high));
  }
}

template <class Narrow>
void multiply_accumulate(float (&sums)[4], const unsigned (&left)[4], const unsigned (&right)[2], SECATEUR_CALL_PLACE) {
  using namespace cuda_on_host;
  constexpr FragmentType kType = std::is_same_v<Narrow, bfloat16> ? FragmentType::kBF16 : FragmentType::kF16;
  const MatrixFragments own{{left[0], left[1], left[2], left[3]}, {right[0], right[1]}};
  add_products(kType, sums, exchange(0xffffffffU, own, Exchange::kMatrix, file, line), current_lane());
}

}  // namespace secateur::gpu
