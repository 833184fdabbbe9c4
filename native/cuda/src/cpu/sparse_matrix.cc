#include "cpu/sparse_matrix.h"

#include <algorithm>
#include <array>
#include <limits>

#include "cpu/vector_math.h"
#include "secateur/error.h"

namespace secateur::cpu {

namespace {

// 64 columns x 128 tokens of float32 are 32 KiB.
constexpr std::size_t kSliceColumns = 64;

std::size_t slices_of(std::size_t columns) { return (columns + kSliceColumns - 1) / kSliceColumns; }

}  // namespace

std::uint64_t SparseMatrix::bytes(std::size_t rows, std::size_t columns, std::uint64_t kept) {
  return slices_of(columns) * (rows + 1) * sizeof(std::uint32_t) + kept * (sizeof(std::uint8_t) + sizeof(float));
}

SparseMatrix::SparseMatrix(MemoryBudget& budget, ThreadPool& pool, CallContext& context, std::size_t rows, std::size_t columns,
                           const float* values, const std::string& purpose)
    : rows_(rows), columns_(columns) {
  const std::size_t slices = slices_of(columns);
  starts_ = Buffer<std::uint32_t>(budget, slices * (rows + 1), purpose);
  const auto slice_of_row = [&](std::size_t slice, std::size_t row) {
    const std::size_t begin = slice * kSliceColumns;
    return std::span(values + row * columns + begin, std::min(kSliceColumns, columns - begin));
  };
  pool.parallel_for(slices, [&](std::size_t slice, std::size_t) {
    context.check();
    for (std::size_t row = 0; row < rows; ++row) {
      const std::span<const float> part = slice_of_row(slice, row);
      starts_[slice * (rows + 1) + row] = static_cast<std::uint32_t>(part.size() - vector_math().count_zeros(part.data(), part.size()));
    }
  });
  std::uint64_t kept = 0;
  for (std::size_t slice = 0; slice < slices; ++slice) {
    for (std::size_t row = 0; row <= rows; ++row) {
      std::uint32_t& start = starts_[slice * (rows + 1) + row];
      const std::uint32_t count = row < rows ? start : 0;
      start = static_cast<std::uint32_t>(kept);
      kept += count;
    }
  }
  if (kept > std::numeric_limits<std::uint32_t>::max()) {
    throw Error(ErrorCode::kInvalidArgument, purpose + " keeps " + std::to_string(kept) + " values; at most 2^32 - 1 are possible.");
  }
  kept_columns_ = Buffer<std::uint8_t>(budget, kept, purpose);
  values_ = Buffer<float>(budget, kept, purpose);
  pool.parallel_for(slices, [&](std::size_t slice, std::size_t) {
    context.check();
    // Others write what comes behind a slice.
    std::array<float, kSliceColumns> part_values;
    std::array<std::uint8_t, kSliceColumns> part_columns;
    std::size_t next = starts_[slice * (rows + 1)];
    for (std::size_t row = 0; row < rows; ++row) {
      const std::span<const float> part = slice_of_row(slice, row);
      const std::size_t count = vector_math().gather_kept(part.data(), part.size(), part_values.data(), part_columns.data());
      std::copy_n(part_values.data(), count, values_.data() + next);
      std::copy_n(part_columns.data(), count, kept_columns_.data() + next);
      next += count;
    }
  });
}

void SparseMatrix::multiply(const float* inputs, float* sums) const {
  std::fill_n(sums, rows_ * kTokenPanel, 0.0F);
  for (std::size_t begin = 0; begin < columns_; begin += kSliceColumns) {
    vector_math().add_sparse_products(starts_.data() + begin / kSliceColumns * (rows_ + 1), kept_columns_.data(), values_.data(), rows_,
                                      inputs + begin * kTokenPanel, sums);
  }
}

}  // namespace secateur::cpu
