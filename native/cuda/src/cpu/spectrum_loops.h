// Inner loops of the spectrum of a weight, for one instruction set.
#include "cpu/vector_math_loops.h"

namespace secateur::cpu::SECATEUR_VECTOR_NAMESPACE {
namespace {

// Aligned like their elements, for rows of a triangle begin anywhere.
using LooseDoubles __attribute__((vector_size(SECATEUR_VECTOR_BYTES), aligned(sizeof(double)), may_alias)) = double;

inline Doubles load(const double* values) { return *reinterpret_cast<const LooseDoubles*>(values); }
inline void store(double* values, Doubles vector) { *reinterpret_cast<LooseDoubles*>(values) = vector; }

void add_outer_products(const double* left, const double* right, std::size_t terms, double* sums) {
  constexpr std::size_t kRows = 4;
  constexpr std::size_t kVectors = 2;
  for (std::size_t row = 0; row < kGramTile; row += kRows) {
    for (std::size_t column = 0; column < kGramTile; column += kVectors * kDoubles) {
      double* const tile = sums + row * kGramTile + column;
      Doubles sum[kRows][kVectors];
      for (std::size_t r = 0; r < kRows; ++r) {
        for (std::size_t c = 0; c < kVectors; ++c) sum[r][c] = load(tile + r * kGramTile + c * kDoubles);
      }
      for (std::size_t term = 0; term < terms; ++term) {
        const double* const values = right + term * kGramTile + column;
        const Doubles operand[kVectors] = {load(values), load(values + kDoubles)};
#pragma GCC unroll 4
        for (std::size_t r = 0; r < kRows; ++r) {
          const double value = left[term * kGramTile + row + r];
#pragma GCC unroll 2
          for (std::size_t c = 0; c < kVectors; ++c) sum[r][c] += value * operand[c];
        }
      }
      for (std::size_t r = 0; r < kRows; ++r) {
        for (std::size_t c = 0; c < kVectors; ++c) store(tile + r * kGramTile + c * kDoubles, sum[r][c]);
      }
    }
  }
}

double update_row(double* row, std::size_t size, const RankTwoUpdate& update, double v, double w, double x, double* products) {
  Doubles chains[kChains] = {};
  std::size_t begin = 0;
  for (; begin + kChains * kDoubles <= size; begin += kChains * kDoubles) {
#pragma GCC unroll 4
    for (std::size_t chain = 0; chain < kChains; ++chain) {
      const std::size_t i = begin + chain * kDoubles;
      const Doubles value = load(row + i) - (v * load(update.w + i) + w * load(update.v + i));
      store(row + i, value);
      chains[chain] += value * load(update.x + i);
      store(products + i, load(products + i) + value * x);
    }
  }
  double total = total_of(chains);
  for (std::size_t i = begin; i < size; ++i) {
    row[i] -= v * update.w[i] + w * update.v[i];
    total += row[i] * update.x[i];
    products[i] += row[i] * x;
  }
  return total;
}

// The signs of the pivots of T - shift: as many are negative as eigenvalues lie below the shift.
void count_below(const double* diagonal, const double* squares, std::size_t size, double least_pivot, const double* shifts,
                 double* counts) {
  constexpr std::size_t kVectors = kShifts / kDoubles;
  Doubles pivot[kVectors];
  Doubles count[kVectors] = {};
  const Doubles one = Doubles{} + 1.0;
  for (std::size_t i = 0; i < size; ++i) {
#pragma GCC unroll 8
    for (std::size_t vector = 0; vector < kVectors; ++vector) {
      Doubles next = diagonal[i] - load(shifts + vector * kDoubles);
      if (i > 0) next -= squares[i] / pivot[vector];
      next = (next < least_pivot && next > -least_pivot) ? Doubles{} - least_pivot : next;
      count[vector] += next < 0.0 ? one : Doubles{};
      pivot[vector] = next;
    }
  }
  for (std::size_t vector = 0; vector < kVectors; ++vector) store(counts + vector * kDoubles, count[vector]);
}

}  // namespace
}  // namespace secateur::cpu::SECATEUR_VECTOR_NAMESPACE
