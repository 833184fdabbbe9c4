#include "cpu/repair/product_totals.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "secateur/error.h"

namespace secateur::cpu {

ProductTotals::ProductTotals(MemoryBudget& budget, ProductShape shape, const std::string& purpose)
    : shape_(shape), sums_(budget, product_values(shape), purpose) {
  std::ranges::fill(sums_.span(), 0.0);
}

std::size_t ProductTotals::items() const noexcept {
  const std::size_t tiles = product_tiles(shape_.columns);
  return shape_.symmetric ? tiles * (tiles + 1) / 2 : product_tiles(shape_.rows) * tiles;
}

ProductTile ProductTotals::tile(std::size_t item) const noexcept {
  const std::size_t tiles = product_tiles(shape_.columns);
  if (!shape_.symmetric) return product_tile(shape_, item / tiles, item % tiles);
  std::size_t row = 0;
  for (; item >= tiles - row; ++row) item -= tiles - row;
  return product_tile(shape_, row, row + item);
}

std::span<const std::uint8_t> ProductTotals::content() const noexcept {
  return {reinterpret_cast<const std::uint8_t*>(sums_.data()), sums_.size() * sizeof(double)};
}

void ProductTotals::add(std::span<const std::uint8_t> content, ThreadPool& pool, CallContext& context) {
  if (content.size() != sums_.size() * sizeof(double)) {
    throw Error(ErrorCode::kInvalidArgument, "Sums of a matrix [" + std::to_string(shape_.rows) + ", " + std::to_string(shape_.columns) +
                                                 "] take " + std::to_string(sums_.size() * sizeof(double)) + " bytes; " +
                                                 std::to_string(content.size()) + " came.");
  }
  pool.parallel_for(items(), [&](std::size_t item, std::size_t) {
    context.check();
    const ProductTile part = tile(item);
    const PhaseScope scope(context, "gram", 12 * static_cast<double>(part.size()), 48 * static_cast<double>(part.size()));
    double* const own_high = high(part);
    double* const own_low = low(part);
    const std::uint8_t* const other = content.data() + part.offset * sizeof(double);
    for (std::size_t i = 0; i < part.size(); ++i) {
      double parts[2];
      std::memcpy(&parts[0], other + i * sizeof(double), sizeof(double));
      std::memcpy(&parts[1], other + (part.size() + i) * sizeof(double), sizeof(double));
      add_to_sum(own_high[i], own_low[i], parts[0]);
      own_low[i] += parts[1];
    }
  });
}

void ProductTotals::round_to(float* matrix, ThreadPool& pool, CallContext& context) const {
  pool.parallel_for(items(), [&](std::size_t item, std::size_t) {
    context.check();
    const ProductTile part = tile(item);
    const PhaseScope scope(context, "gram", static_cast<double>(part.size()), 24 * static_cast<double>(part.size()));
    const double* const own_high = sums_.data() + part.offset;
    const double* const own_low = own_high + part.size();
    for (std::size_t i = 0; i < part.rows; ++i) {
      const std::size_t row = part.first_row + i;
      for (std::size_t j = 0; j < part.columns; ++j) {
        const std::size_t column = part.first_column + j;
        const auto sum = static_cast<float>(own_high[i * part.columns + j] + own_low[i * part.columns + j]);
        if (!std::isfinite(sum)) {
          const std::string place = std::to_string(row) + " and column " + std::to_string(column) + ".";
          throw Error(ErrorCode::kNonFinite, "Products of the inputs add up to NaN or infinity in row " + place);
        }
        matrix[row * shape_.columns + column] = sum;
        if (shape_.symmetric) matrix[column * shape_.columns + row] = sum;
      }
    }
  });
}

}  // namespace secateur::cpu
