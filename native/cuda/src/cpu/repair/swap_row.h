// Which weights of a row are swapped, once its products with the Gram matrices are known.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace secateur::cpu {

struct SwapTask {
  std::size_t rows;
  std::size_t columns;
  // [rows, columns]: dense.
  std::span<const float> weights;
  // [columns, columns] each: of the samples that swaps are chosen by, and of those that tell how many of them to keep.
  std::span<const float> fitting;
  std::span<const float> held_out;
  // Added to the diagonal of the fitting one.
  double damping;
  // Swaps of a row, at most.
  std::size_t most;
  // [rows, ceil(columns / 8)], in and out.
  std::uint8_t* mask;
};

// Values [columns] in float64 that a row works with.
inline constexpr std::size_t kSwapVectors = 5;

// lost [columns]: the row's weights where they are dropped, else 0; fitting and held_out [columns]: their products with both Gram matrices,
// not damped. scratch: kSwapVectors · columns. Returns the swaps that are kept.
std::size_t swap_row(const SwapTask& task, std::size_t row, const float* lost, const float* fitting, const float* held_out,
                     double* scratch);

}  // namespace secateur::cpu
