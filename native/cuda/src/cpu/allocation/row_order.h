// Scores of the weights of a row and their ascending, stable order.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace secateur::allocation {

// Scores as sort keys: |weight| * scale, or |weight| when scales is empty. Non-negative float32 values order like their bits.
inline std::uint32_t score_key(float weight) { return std::bit_cast<std::uint32_t>(std::fabs(weight)); }
inline std::uint32_t score_key(float weight, float scale) { return std::bit_cast<std::uint32_t>(std::fabs(weight) * scale); }

// keys: [columns]. Returns the first column whose weight is NaN or infinite, columns when there is none.
std::size_t score_row(std::span<const float> weights, std::span<const float> scales, std::span<std::uint32_t> keys);

// What the keys of a row are made of.
struct RowScores {
  std::span<const float> weights;
  std::span<const float> scales;

  std::uint32_t key(std::size_t column) const {
    return scales.empty() ? score_key(weights[column]) : score_key(weights[column], scales[column]);
  }
};

// The orders of all rows: columns by ascending score, equal scores by ascending column. A search looks at a part of each order only. So the
// columns are put into buckets of similar scores first, and sorted where somebody asks. Two bytes an entry where the columns allow it.
class RowOrders {
 public:
  // What one thread needs; reused over rows so that nothing is allocated per row.
  class Scratch {
   public:
    explicit Scratch(std::size_t columns);
    static std::uint64_t bytes(std::size_t columns);

   private:
    friend class RowOrders;
    // Bucket of each column, then the place of the next column of each bucket.
    std::vector<std::uint16_t> buckets_;
    std::vector<std::uint32_t> bucket_starts_;
    // Key in the upper half, column in the lower.
    std::vector<std::uint64_t> entries_;
  };

  RowOrders(std::size_t rows, std::size_t columns);
  static std::uint64_t scratch_bytes(std::size_t rows, std::size_t columns);

  // Puts the row's columns into buckets. keys: [columns], none of a NaN.
  void group(std::size_t row, std::span<const std::uint32_t> keys, Scratch& scratch);
  // Makes the places [first, last) of the order exact, with those around them that share a bucket.
  void sort(std::size_t row, std::size_t first, std::size_t last, const RowScores& scores, Scratch& scratch);
  // Columns at the places from `first` on upwards, and from `first` - 1 on downwards.
  void load_upwards(std::size_t row, std::size_t first, std::span<std::uint32_t> columns) const;
  void load_downwards(std::size_t row, std::size_t first, std::span<std::uint32_t> columns) const;
  // Sets the bits of the columns before place `count`, which must be exact when it is one; bits: ceil(columns / 8) zero bytes.
  void mark_first(std::size_t row, std::size_t count, std::span<std::uint8_t> bits) const;

 private:
  template <class Visit>
  void visit_row(std::size_t row, Visit visit) const;
  std::size_t columns_;
  std::uint32_t bucket_shift_;
  // [rows]: what is not above it is in the first bucket.
  std::vector<std::uint32_t> smallest_keys_;
  std::unique_ptr<std::uint16_t[]> narrow_;
  std::unique_ptr<std::uint32_t[]> wide_;
};

}  // namespace secateur::allocation
