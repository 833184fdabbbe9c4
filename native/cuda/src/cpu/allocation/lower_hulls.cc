#include "lower_hulls.h"

#include <algorithm>
#include <bit>

namespace secateur::allocation {
namespace {

constexpr std::size_t kWordBits = 64;

constexpr std::size_t words_of(std::size_t highest) { return highest / kWordBits + 1; }

// The same arithmetic wherever a slope is needed, so that the slopes of a hull never fall by a rounding.
double slope_between(double first_error, double last_error, std::size_t counts) {
  return (last_error - first_error) / static_cast<double>(counts);
}

}  // namespace

LowerHulls::Scratch::Scratch(std::size_t highest) : errors_(highest + 1), vertices_(highest + 1), slopes_(highest + 1) {}

std::uint64_t LowerHulls::Scratch::bytes(std::size_t highest) { return (highest + 1) * (2 * sizeof(double) + sizeof(std::uint32_t)); }

LowerHulls::LowerHulls(std::size_t rows, std::size_t highest, const ErrorCurves& errors)
    : rows_(rows), highest_(highest), words_(words_of(highest)), errors_(errors), bits_(rows * words_) {}

std::uint64_t LowerHulls::scratch_bytes(std::size_t rows, std::size_t highest) { return rows * words_of(highest) * sizeof(std::uint64_t); }

void LowerHulls::build(std::size_t row, Scratch& scratch) {
  const std::size_t known = std::min(errors_.first_known(row), highest_ + 1);
  double* const errors = scratch.errors_.data();
  std::uint32_t* const vertices = scratch.vertices_.data();
  double* const slopes = scratch.slopes_.data();
  errors_.load(row, known, std::span(scratch.errors_).subspan(known, highest_ + 1 - known));
  errors[0] = 0;
  vertices[0] = 0;
  std::size_t last = 0;
  const auto add = [&](std::size_t count) {
    const auto slope_from = [&](std::size_t vertex) { return slope_between(errors[vertex], errors[count], count - vertex); };
    double slope = slope_from(vertices[last]);
    while (last > 0 && slopes[last] >= slope) slope = slope_from(vertices[--last]);
    ++last;
    vertices[last] = static_cast<std::uint32_t>(count);
    slopes[last] = slope;
  };
  if (known > 1) {
    // The farthest of what costs nothing.
    errors[known - 1] = 0;
    add(known - 1);
  }
  for (std::size_t count = known; count <= highest_; ++count) {
    // Where a curve bends down it does not touch its hull.
    if (count > 0 && count < highest_ && errors[count] - errors[count - 1] > errors[count + 1] - errors[count]) continue;
    if (count > 0) add(count);
  }
  std::uint64_t* const words = bits(row);
  std::fill_n(words, words_, std::uint64_t{0});
  for (std::size_t i = 0; i <= last; ++i) words[vertices[i] / kWordBits] |= std::uint64_t{1} << vertices[i] % kWordBits;
}

std::size_t LowerHulls::next(std::size_t row, std::size_t count) const {
  const std::uint64_t* const words = bits(row);
  std::size_t word = (count + 1) / kWordBits;
  std::uint64_t left = words[word] & ~std::uint64_t{0} << (count + 1) % kWordBits;
  while (left == 0) left = words[++word];
  return word * kWordBits + static_cast<std::size_t>(std::countr_zero(left));
}

std::size_t LowerHulls::at_or_before(std::size_t row, std::size_t count) const {
  const std::uint64_t* const words = bits(row);
  std::size_t word = count / kWordBits;
  std::uint64_t left = words[word] & ~std::uint64_t{0} >> (kWordBits - 1 - count % kWordBits);
  while (left == 0) left = words[--word];
  return word * kWordBits + kWordBits - 1 - static_cast<std::size_t>(std::countl_zero(left));
}

double LowerHulls::slope(std::size_t row, std::size_t vertex, std::size_t next) const {
  return slope_between(errors_.at(row, vertex), errors_.at(row, next), next - vertex);
}

double LowerHulls::last_slope(std::size_t row) const { return highest_ == 0 ? 0 : slope(row, at_or_before(row, highest_ - 1), highest_); }

std::size_t LowerHulls::vertex_at(std::size_t row, double slope, std::size_t first, std::size_t last) const {
  while (first < last) {
    const std::size_t middle = at_or_before(row, first + (last - first - 1) / 2);
    const std::size_t after = next(row, middle);
    if (this->slope(row, middle, after) > slope) {
      last = middle;
    } else {
      first = after;
    }
  }
  return first;
}

}  // namespace secateur::allocation
