// The convex curves from below that touch the squared errors of rows: what each further dropped weight costs at least, never less than the
// one before it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace secateur::allocation {

// Squared errors of rows' outputs by the count of weights they drop: finite, not negative, 0 where nothing is dropped.
class ErrorCurves {
 public:
  ErrorCurves() = default;
  virtual ~ErrorCurves() = default;
  ErrorCurves(const ErrorCurves&) = delete;
  ErrorCurves& operator=(const ErrorCurves&) = delete;

  // Counts below this, but none dropped, are not known yet and taken to cost nothing. They are told by `at` only.
  virtual std::size_t first_known(std::size_t row) const = 0;
  // May be called by several threads at a time.
  virtual double at(std::size_t row, std::size_t count) const = 0;
  // Sets errors[i] to that of the count `first` + i.
  virtual void load(std::size_t row, std::size_t first, std::span<double> errors) const = 0;
};

class LowerHulls {
 public:
  // What one thread needs to build hulls.
  class Scratch {
   public:
    explicit Scratch(std::size_t highest);
    static std::uint64_t bytes(std::size_t highest);

   private:
    friend class LowerHulls;
    // [highest + 1]
    std::vector<double> errors_;
    // Vertices so far, and the slopes that lead to them.
    std::vector<std::uint32_t> vertices_;
    std::vector<double> slopes_;
  };

  // Of the counts 0 … highest. Keeps the reference.
  LowerHulls(std::size_t rows, std::size_t highest, const ErrorCurves& errors);
  static std::uint64_t scratch_bytes(std::size_t rows, std::size_t highest);

  // Hulls of different rows may be built at the same time. A row may be built again when more of it is known.
  void build(std::size_t row, Scratch& scratch);

  // The rest is of rows whose hulls are built. Counts at which a hull turns, and both its ends, are its vertices.
  std::size_t rows() const { return rows_; }
  std::size_t highest() const { return highest_; }
  // The first vertex after a count below the highest.
  std::size_t next(std::size_t row, std::size_t count) const;
  // What each weight costs from one vertex to the next.
  double slope(std::size_t row, std::size_t vertex, std::size_t next) const;
  double last_slope(std::size_t row) const;
  // The last of the vertices from `first` to `last` up to which no weight costs more than `slope`; those up to `first` do not.
  std::size_t vertex_at(std::size_t row, double slope, std::size_t first, std::size_t last) const;

 private:
  std::uint64_t* bits(std::size_t row) { return bits_.data() + row * words_; }
  const std::uint64_t* bits(std::size_t row) const { return bits_.data() + row * words_; }
  // The last vertex at a count or before it.
  std::size_t at_or_before(std::size_t row, std::size_t count) const;

  std::size_t rows_;
  std::size_t highest_;
  std::size_t words_;
  const ErrorCurves& errors_;
  // [rows, words_]: a bit for each count, set for vertices.
  std::vector<std::uint64_t> bits_;
};

}  // namespace secateur::allocation
