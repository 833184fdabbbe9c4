// A model of the instructions of src/cuda/tensor_core.h. Products of bfloat16 values are exact in float32; the sum of a fragment's 16
// products is added in ascending order. Hardware adds them in an order of its own: results agree within rounding, not bit for bit.
#pragma once

#include "cuda_on_host.h"

namespace secateur::gpu {

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

inline float unpack(unsigned pair, unsigned index) { return __uint_as_float((index == 0 ? pair << 16 : pair & 0xffff0000U)); }

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

inline void multiply_accumulate_bf16(float (&sums)[4], const unsigned (&left)[4], const unsigned (&right)[2], SECATEUR_CALL_PLACE) {
  using namespace cuda_on_host;
  struct LeftFragment {
    unsigned registers[4];
  };
  struct RightFragment {
    unsigned registers[2];
  };
  const LaneValues lefts = exchange(0xffffffffU, LeftFragment{{left[0], left[1], left[2], left[3]}}, Exchange::kMatrix, file, line);
  const LaneValues& rights = exchange(0xffffffffU, RightFragment{{right[0], right[1]}}, Exchange::kMatrix, file, line);
  const unsigned lane = current_lane();
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane / 4 + i / 2 * 8;
    const unsigned column = lane % 4 * 2 + i % 2;
    float sum = sums[i];
    for (unsigned k = 0; k < 16; ++k) {
      // Registers 0 and 1 hold the columns below 8 of rows below and from 8 on, 2 and 3 the others.
      const unsigned left_register = row / 8 + k / 8 * 2;
      const auto a = value_of<LeftFragment>(lefts, row % 8 * 4 + k % 8 / 2).registers[left_register];
      const auto b = value_of<RightFragment>(rights, column * 4 + k % 8 / 2).registers[k / 8];
      sum += detail::unpack(a, k % 2) * detail::unpack(b, k % 2);
    }
    sums[i] = sum;
  }
}

}  // namespace secateur::gpu
