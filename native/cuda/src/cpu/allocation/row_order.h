// Scores of the weights of a row and their ascending, stable order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "row_scan.h"

namespace secateur::allocation {

// keys: [columns], out. Returns the first column whose weight is NaN or infinite, columns when there is none.
std::size_t score_row(RowScanFunctions functions, const RowScores& scores, std::span<std::uint32_t> keys);

// The orders of all rows: columns by ascending score, equal scores by ascending column. A search looks at a part of each order only. So no
// order is kept, but how many scores of the row are below each of some bounds; where somebody asks for a part of the order, the columns
// with scores between two bounds are looked up and sorted.
class RowOrders {
 public:
  // What one thread needs; reused over rows so that nothing is allocated per row.
  class Scratch {
   public:
    explicit Scratch(std::size_t columns);
    static std::uint64_t bytes(std::size_t columns);

   private:
    friend class RowOrders;
    // Bucket of each column.
    std::vector<std::uint16_t> buckets_;
    // Per bucket: how many columns it has, then the place of its next column.
    std::vector<std::uint32_t> places_;
    // What was collected of a row, then the same by bucket, with what RowScanFunctions::settle needs around it, then in order.
    std::vector<std::uint32_t> columns_;
    std::vector<std::uint32_t> keys_;
    std::vector<std::uint32_t> grouped_columns_;
    std::vector<std::uint32_t> grouped_keys_;
    std::vector<std::uint32_t> order_;
  };

  RowOrders(std::size_t rows, std::size_t columns, RowScanFunctions functions);
  static std::uint64_t scratch_bytes(std::size_t rows, std::size_t columns);

  // Counts the row's scores. keys: [columns], none of a NaN; those of the scores that are given to the other functions.
  void group(std::size_t row, std::span<const std::uint32_t> keys, Scratch& scratch);
  // Columns at the places from `first` on upwards, and from `first` - 1 on downwards.
  void load_upwards(std::size_t row, const RowScores& scores, std::size_t first, std::span<std::uint32_t> columns, Scratch& scratch) const;
  void load_downwards(std::size_t row, const RowScores& scores, std::size_t first, std::span<std::uint32_t> columns,
                      Scratch& scratch) const;
  // The columns at all places before `place`, and at all others, in no particular order; columns: as many as they are.
  void load_before(std::size_t row, const RowScores& scores, std::size_t place, std::span<std::uint32_t> columns, Scratch& scratch) const;
  void load_from(std::size_t row, const RowScores& scores, std::size_t place, std::span<std::uint32_t> columns, Scratch& scratch) const;
  // Sets the bits of the columns before `place` and clears the others; bits: ceil(columns / 8).
  void mark_before(std::size_t row, const RowScores& scores, std::size_t place, std::span<std::uint8_t> bits, Scratch& scratch) const;

 private:
  // Some buckets that follow each other: the places [first, last) of the order, and the keys [first_key, first_key + keys).
  struct Part {
    std::size_t first_bucket;
    std::size_t buckets;
    std::size_t first;
    std::size_t last;
    std::uint32_t first_key;
    std::uint32_t keys;

    std::uint32_t end_key() const { return first_key + keys; }
  };

  // Calls visit(places of the row) with their type.
  template <class Visit>
  auto with_places(std::size_t row, Visit visit) const;
  std::size_t place_of(std::size_t row, std::size_t bucket) const;
  // The buckets of the places [first, last), which are not empty.
  Part part_of(std::size_t row, std::size_t first, std::size_t last) const;
  // The order of a part, in the scratch memory.
  std::span<const std::uint32_t> sort(std::size_t row, const RowScores& scores, const Part& part, Scratch& scratch) const;

  std::size_t columns_;
  std::size_t buckets_;
  std::uint32_t bucket_shift_;
  RowScanFunctions functions_;
  // [rows]: what is not above it is in the first bucket.
  std::vector<std::uint32_t> smallest_keys_;
  // [rows, groups + buckets]: place of the first column of each group of buckets, then of each bucket. In two bytes where the columns fit.
  std::unique_ptr<std::uint16_t[]> narrow_;
  std::unique_ptr<std::uint32_t[]> wide_;
};

}  // namespace secateur::allocation
