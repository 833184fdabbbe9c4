#include "cpu/spectrum.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "cpu/vector_math.h"

namespace secateur::cpu {

namespace {

// Products are added up in pieces of so many terms, whose panels stay in the second-level cache.
constexpr std::size_t kTerms = 256;
constexpr std::size_t kPanel = kTerms * kGramTile;
constexpr std::size_t kTileValues = kGramTile * kGramTile;
// Rows that are updated together and have their own part of the product.
constexpr std::size_t kUpdateRows = 128;
// Halvings after which an interval is below the rounding of the eigenvalues it was begun with.
constexpr int kHalvings = 60;
const std::string kPurpose = "the eigenvalues of a weight";

std::size_t parts_of(std::size_t size, std::size_t part) { return (size + part - 1) / part; }
std::size_t triangle_size(std::size_t size) { return size * (size + 1) / 2; }

// The lower triangle of a symmetric matrix, row by row.
class Triangle {
 public:
  Triangle(MemoryBudget& budget, std::size_t size) : size_(size), values_(budget, triangle_size(size), kPurpose) {}
  std::size_t size() const noexcept { return size_; }
  double* row(std::size_t index) noexcept { return values_.data() + triangle_size(index); }

 private:
  std::size_t size_;
  Buffer<double> values_;
};

// One thread's memory for a tile of the product.
struct GramSpace {
  static constexpr std::size_t kValues = 2 * kPanel + kTileValues + kPanel * sizeof(float) / sizeof(double);

  explicit GramSpace(double* memory)
      : left(memory),
        right(memory + kPanel),
        sums(memory + 2 * kPanel),
        narrow(reinterpret_cast<float*>(memory + 2 * kPanel + kTileValues)) {}

  // [kTerms, kGramTile]
  double* left;
  double* right;
  // [kGramTile, kGramTile]
  double* sums;
  // [kTerms, kGramTile]
  float* narrow;
};

// Vectors whose products with each other make up the smaller of W·Wᵀ and WᵀW: the rows of W, or its columns.
class Vectors {
 public:
  explicit Vectors(const Matrix& weight) : weight_(weight), are_rows_(weight.rows <= weight.columns) {}
  std::size_t count() const noexcept { return std::min(weight_.rows, weight_.columns); }
  std::size_t terms() const noexcept { return std::max(weight_.rows, weight_.columns); }

  // panel[term, i] = vector first + i at first_term + term; 0 for vectors that are not there. `narrow` is as large as the panel.
  void pack(std::size_t first, std::size_t first_term, std::size_t terms, float* narrow, double* panel) const {
    const std::size_t vectors = std::min(kGramTile, count() - first);
    if (vectors < kGramTile) std::fill(narrow, narrow + terms * kGramTile, 0.0F);
    if (are_rows_) {
      vector_math().transpose(weight_.values.data() + first * weight_.columns + first_term, vectors, terms, weight_.columns, narrow,
                              kGramTile);
    } else {
      for (std::size_t term = 0; term < terms; ++term) {
        const float* const source = weight_.values.data() + (first_term + term) * weight_.columns + first;
        std::copy(source, source + vectors, narrow + term * kGramTile);
      }
    }
    std::copy(narrow, narrow + terms * kGramTile, panel);
  }

 private:
  const Matrix& weight_;
  bool are_rows_;
};

void multiply_tile(const Vectors& vectors, std::size_t row, std::size_t column, const GramSpace& space, CallContext& context) {
  std::fill(space.sums, space.sums + kTileValues, 0.0);
  for (std::size_t term = 0; term < vectors.terms(); term += kTerms) {
    context.check();
    const std::size_t terms = std::min(kTerms, vectors.terms() - term);
    vectors.pack(row, term, terms, space.narrow, space.left);
    if (row != column) vectors.pack(column, term, terms, space.narrow, space.right);
    vector_math().add_outer_products(space.left, row == column ? space.left : space.right, terms, space.sums);
  }
}

void fill_gram(const Matrix& weight, Triangle& gram, MemoryBudget& budget, ThreadPool& pool, CallContext& context) {
  const Vectors vectors(weight);
  const std::size_t size = vectors.count();
  const std::size_t tiles = parts_of(size, kGramTile);
  Buffer<double> memory(budget, pool.size() * GramSpace::kValues, kPurpose);
  pool.parallel_for(triangle_size(tiles), [&](std::size_t item, std::size_t worker) {
    // Tiles of the triangle are numbered row by row.
    auto tile_row = static_cast<std::size_t>((std::sqrt(8.0 * static_cast<double>(item) + 1.0) - 1.0) / 2.0);
    while (triangle_size(tile_row) > item) --tile_row;
    while (triangle_size(tile_row + 1) <= item) ++tile_row;
    const std::size_t row = tile_row * kGramTile;
    const std::size_t column = (item - triangle_size(tile_row)) * kGramTile;
    const auto terms = static_cast<double>(vectors.terms());
    const PhaseScope scope(context, "spectrum", 2.0 * static_cast<double>(kTileValues) * terms,
                           8.0 * static_cast<double>(kGramTile) * terms);
    const GramSpace space(memory.data() + worker * GramSpace::kValues);
    multiply_tile(vectors, row, column, space, context);
    for (std::size_t i = 0; i < std::min(kGramTile, size - row); ++i) {
      const double* const sums = space.sums + i * kGramTile;
      const std::size_t end = std::min(kGramTile, row + i + 1 - column);
      std::copy(sums, sums + end, gram.row(row + i) + column);
    }
  });
}

struct Tridiagonal {
  explicit Tridiagonal(std::size_t size) : diagonal(size), squares(size) {}

  std::vector<double> diagonal;
  // Of the element between rows i - 1 and i; that of row 0 is 0.
  std::vector<double> squares;
};

// The reflection I - x·xᵀ / half that turns a vector into a multiple of its last axis; half is 0 where it is one already.
struct Reflection {
  double half = 0;
  double square = 0;
};

Reflection reflect(const double* vector, std::size_t size, double* x) {
  double rest = 0;
  for (std::size_t i = 0; i + 1 < size; ++i) rest += vector[i] * vector[i];
  const double last = vector[size - 1];
  const double square = rest + last * last;
  std::copy(vector, vector + size, x);
  if (rest == 0) {
    std::fill(x, x + size, 0.0);
    return {0, square};
  }
  const double norm = std::copysign(std::sqrt(square), last);
  x[size - 1] += norm;
  return {square + last * norm, square};
}

// Householder's reduction, from the last row to the first. The update of one step and the product of the next are one pass through the
// matrix, which is what takes the time of large ones.
class Reduction {
 public:
  Reduction(Triangle& matrix, MemoryBudget& budget, ThreadPool& pool, CallContext& context)
      : matrix_(matrix), pool_(pool), context_(context), memory_(budget, values(matrix.size()), kPurpose) {
    const std::size_t size = matrix.size();
    v_ = memory_.data();
    w_ = v_ + size;
    x_ = w_ + size;
    products_ = x_ + size;
    std::fill(v_, v_ + 3 * size, 0.0);
  }

  static std::size_t values(std::size_t size) { return size * (3 + parts_of(size, kUpdateRows)); }

  Tridiagonal run() {
    Tridiagonal result(matrix_.size());
    for (std::size_t row = matrix_.size() - 1; row > 0; --row) {
      double* const values = matrix_.row(row);
      const RankTwoUpdate update{v_, w_, x_};
      for (std::size_t i = 0; i <= row; ++i) values[i] -= v_[row] * w_[i] + w_[row] * v_[i];
      result.diagonal[row] = values[row];
      const Reflection reflection = reflect(values, row, x_);
      result.squares[row] = reflection.square;
      update_rows(row, update);
      make_next_update(row, reflection.half);
    }
    result.diagonal[0] = *matrix_.row(0);
    return result;
  }

 private:
  // The rows before `end` become what the update makes of them, and are multiplied by x.
  void update_rows(std::size_t end, const RankTwoUpdate& update) {
    const std::size_t stride = matrix_.size();
    pool_.parallel_for(parts_of(end, kUpdateRows), [&](std::size_t part, std::size_t) {
      context_.check();
      const std::size_t first = part * kUpdateRows;
      const std::size_t last = std::min(end, first + kUpdateRows);
      const auto touched = static_cast<double>((last - first) * (first + last) / 2);
      const PhaseScope scope(context_, "spectrum", 8.0 * touched, 16.0 * touched);
      double* const products = products_ + part * stride;
      std::fill(products, products + last, 0.0);
      for (std::size_t row = first; row < last; ++row) {
        double* const values = matrix_.row(row);
        values[row] -= 2.0 * v_[row] * w_[row];
        products[row] += vector_math().update_row(values, row, update, v_[row], w_[row], x_[row], products) + values[row] * x_[row];
      }
    });
  }

  // A becomes H·A·H with H = I - x·xᵀ / half: an update by v = x and w = p - (x·p / 2 half)·x with p = A·x / half.
  void make_next_update(std::size_t size, double half) {
    if (half == 0) {
      std::fill(v_, v_ + 2 * matrix_.size(), 0.0);
      return;
    }
    const std::size_t stride = matrix_.size();
    const std::size_t parts = parts_of(size, kUpdateRows);
    double overlap = 0;
    for (std::size_t i = 0; i < size; ++i) {
      double product = 0;
      for (std::size_t part = i / kUpdateRows; part < parts; ++part) product += products_[part * stride + i];
      w_[i] = product / half;
      overlap += x_[i] * w_[i];
    }
    for (std::size_t i = 0; i < size; ++i) {
      v_[i] = x_[i];
      w_[i] -= overlap / (2 * half) * x_[i];
    }
  }

  Triangle& matrix_;
  ThreadPool& pool_;
  CallContext& context_;
  // v, w, x, and for each part of the rows what it adds to the product.
  Buffer<double> memory_;
  double* v_;
  double* w_;
  double* x_;
  double* products_;
};

// By bisection: no step of it can fail to converge, and no eigenvalue depends on another.
std::vector<double> eigenvalues_of(const Tridiagonal& matrix, ThreadPool& pool, CallContext& context) {
  const std::size_t size = matrix.diagonal.size();
  double low = std::numeric_limits<double>::infinity();
  double high = -low;
  double largest_square = 1;
  for (std::size_t i = 0; i < size; ++i) {
    const double reach = std::sqrt(matrix.squares[i]) + (i + 1 < size ? std::sqrt(matrix.squares[i + 1]) : 0.0);
    low = std::min(low, matrix.diagonal[i] - reach);
    high = std::max(high, matrix.diagonal[i] + reach);
    largest_square = std::max(largest_square, matrix.squares[i]);
  }
  if (!std::isfinite(low) || !std::isfinite(high)) throw Error(ErrorCode::kNonFinite, "The eigenvalues of the weight are not finite.");
  const double least_pivot = std::numeric_limits<double>::min() * largest_square;
  std::vector<double> eigenvalues(size);
  pool.parallel_for(parts_of(size, kShifts), [&](std::size_t part, std::size_t) {
    const PhaseScope scope(context, "spectrum", 4.0 * kHalvings * static_cast<double>(size * kShifts), 0);
    const std::size_t first = part * kShifts;
    double lows[kShifts];
    double highs[kShifts];
    double middles[kShifts];
    double counts[kShifts];
    std::fill(lows, lows + kShifts, low);
    std::fill(highs, highs + kShifts, high);
    for (int halving = 0; halving < kHalvings; ++halving) {
      context.check();
      for (std::size_t lane = 0; lane < kShifts; ++lane) middles[lane] = lows[lane] + (highs[lane] - lows[lane]) / 2;
      vector_math().count_below(matrix.diagonal.data(), matrix.squares.data(), size, least_pivot, middles, counts);
      for (std::size_t lane = 0; lane < kShifts; ++lane) {
        (counts[lane] > static_cast<double>(first + lane) ? highs : lows)[lane] = middles[lane];
      }
    }
    // Products of a matrix with itself have none below 0.
    for (std::size_t lane = 0; lane < std::min(kShifts, size - first); ++lane) eigenvalues[first + lane] = std::max(0.0, highs[lane]);
  });
  return eigenvalues;
}

}  // namespace

std::vector<double> squared_singular_values(const Matrix& weight, MemoryBudget& budget, ThreadPool& pool, CallContext& context) {
  Triangle gram(budget, std::min(weight.rows, weight.columns));
  fill_gram(weight, gram, budget, pool, context);
  const Tridiagonal reduced = Reduction(gram, budget, pool, context).run();
  return eigenvalues_of(reduced, pool, context);
}

std::uint64_t spectrum_scratch_bytes(std::size_t rows, std::size_t columns, std::size_t threads) {
  const std::size_t size = std::min(rows, columns);
  return sizeof(double) * (triangle_size(size) + std::max(threads * GramSpace::kValues, Reduction::values(size)));
}

}  // namespace secateur::cpu
