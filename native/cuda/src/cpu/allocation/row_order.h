// Scores of the weights of a row and their ascending, stable order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace secateur::allocation {

// Scores as sort keys: |weight| * scale, or |weight| when scales is empty. Non-negative float32 values order like their bits.
// Returns the first column whose weight is NaN or infinite, columns when there is none.
std::size_t score_row(std::span<const float> weights, std::span<const float> scales, std::span<std::uint32_t> keys);

// Sorts rows of at most `columns` keys; reused over rows so that nothing is allocated per row.
class RowSorter {
 public:
  explicit RowSorter(std::size_t columns);
  static std::uint64_t scratch_bytes(std::size_t columns);

  // order: the columns by ascending key, equal keys by ascending column.
  void sort(std::span<const std::uint32_t> keys, std::span<std::uint32_t> order);

 private:
  // Key in the upper half, column in the lower.
  std::vector<std::uint64_t> from_;
  std::vector<std::uint64_t> to_;
};

// The orders of all rows, two bytes an entry where the columns allow it.
class RowOrders {
 public:
  RowOrders(std::size_t rows, std::size_t columns);
  static std::uint64_t scratch_bytes(std::size_t rows, std::size_t columns);

  void store(std::size_t row, std::span<const std::uint32_t> order);
  // Columns of the row's order, the `first`-th and those after it, counted from its low end up or from its high end down.
  void load_from_low(std::size_t row, std::size_t first, std::span<std::uint32_t> columns) const;
  void load_from_high(std::size_t row, std::size_t first, std::span<std::uint32_t> columns) const;
  // Sets the bits of the first `count` columns of the row's order; bits: ceil(columns / 8) zero bytes.
  void mark_first(std::size_t row, std::size_t count, std::span<std::uint8_t> bits) const;

 private:
  std::size_t columns_;
  std::unique_ptr<std::uint16_t[]> narrow_;
  std::unique_ptr<std::uint32_t[]> wide_;
};

}  // namespace secateur::allocation
