#include "cpu/sparse_matrix.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <limits>

#include "cpu/pair_math.h"
#include "cpu/vector_math.h"
#include "secateur/error.h"

namespace secateur::cpu {

namespace {

template <class Value>
struct Slices;

template <>
struct Slices<float> {
  // 64 columns x 128 tokens of float32 are 32 KiB.
  static constexpr std::size_t kColumns = 64;
  static constexpr std::size_t kTogether = 1;
};

template <>
struct Slices<std::uint16_t> {
  static constexpr std::size_t kColumns = 128;
  static constexpr std::size_t kTogether = 2;
};

std::size_t parts_of(std::size_t size, std::size_t part) { return (size + part - 1) / part; }

void store(const float* values, std::size_t size, float* result) { std::copy_n(values, size, result); }
void store(const float* values, std::size_t size, std::uint16_t* result) { vector_math().narrow_bf16(values, size, result); }

void add_products(const std::uint32_t* starts, const std::uint8_t* columns, const float* values, std::size_t rows, const float* inputs,
                  float* sums) {
  vector_math().add_sparse_products(starts, columns, values, rows, inputs, sums);
}
void add_products(const std::uint32_t* starts, const std::uint8_t* columns, const std::uint16_t* values, std::size_t rows,
                  const std::uint16_t* inputs, float* sums) {
  pair_math()->add_sparse_products(starts, columns, values, rows, inputs, sums);
}

}  // namespace

template <class Value>
std::uint64_t SparseMatrix<Value>::bytes(std::size_t rows, std::size_t columns, std::uint64_t kept) {
  const std::size_t slices = parts_of(columns, Slices<Value>::kColumns);
  const std::uint64_t without_partner = rows * slices * (Slices<Value>::kTogether - 1);
  return slices * (rows + 1) * sizeof(std::uint32_t) + (kept + without_partner) * (sizeof(std::uint8_t) + sizeof(Value));
}

template <class Value>
SparseMatrix<Value>::SparseMatrix(MemoryBudget& budget, ThreadPool& pool, CallContext& context, std::size_t rows, std::size_t columns,
                                  const float* values, const std::string& purpose)
    : rows_(rows), columns_(columns) {
  constexpr std::size_t kSliceColumns = Slices<Value>::kColumns;
  constexpr std::size_t kTogether = Slices<Value>::kTogether;
  const std::size_t slices = parts_of(columns, kSliceColumns);
  starts_ = Buffer<std::uint32_t>(budget, slices * (rows + 1), purpose);
  const auto slice_of_row = [&](std::size_t slice, std::size_t row) {
    const std::size_t begin = slice * kSliceColumns;
    return std::span(values + row * columns + begin, std::min(kSliceColumns, columns - begin));
  };
  std::atomic<std::uint64_t> kept{0};
  pool.parallel_for(slices, [&](std::size_t slice, std::size_t) {
    context.check();
    std::uint64_t kept_in_slice = 0;
    for (std::size_t row = 0; row < rows; ++row) {
      const std::span<const float> part = slice_of_row(slice, row);
      const std::size_t count = part.size() - vector_math().count_zeros(part.data(), part.size());
      starts_[slice * (rows + 1) + row] = static_cast<std::uint32_t>(parts_of(count, kTogether));
      kept_in_slice += count;
    }
    kept += kept_in_slice;
  });
  kept_ = kept;
  std::uint64_t next_start = 0;
  for (std::size_t slice = 0; slice < slices; ++slice) {
    for (std::size_t row = 0; row <= rows; ++row) {
      std::uint32_t& start = starts_[slice * (rows + 1) + row];
      const std::uint32_t count = row < rows ? start : 0;
      start = static_cast<std::uint32_t>(next_start);
      next_start += count;
    }
  }
  if (next_start > std::numeric_limits<std::uint32_t>::max()) {
    throw Error(ErrorCode::kInvalidArgument, purpose + " are " + std::to_string(kept_) + "; at most 2^32 - 1 are possible.");
  }
  kept_columns_ = Buffer<std::uint8_t>(budget, kTogether * next_start, purpose);
  values_ = Buffer<Value>(budget, kTogether * next_start, purpose);
  pool.parallel_for(slices, [&](std::size_t slice, std::size_t) {
    context.check();
    // Others write what comes behind a slice.
    std::array<float, kSliceColumns> part_values;
    std::array<std::uint8_t, kSliceColumns> part_columns;
    std::size_t next = kTogether * starts_[slice * (rows + 1)];
    for (std::size_t row = 0; row < rows; ++row) {
      const std::span<const float> part = slice_of_row(slice, row);
      std::size_t count = vector_math().gather_kept(part.data(), part.size(), part_values.data(), part_columns.data());
      for (; count % kTogether != 0; ++count) {
        part_values[count] = 0;
        part_columns[count] = part_columns[count - 1];
      }
      store(part_values.data(), count, values_.data() + next);
      std::copy_n(part_columns.data(), count, kept_columns_.data() + next);
      next += count;
    }
  });
}

template <class Value>
void SparseMatrix<Value>::multiply(const Value* inputs, float* sums) const {
  std::fill_n(sums, rows_ * kTokenPanel, 0.0F);
  for (std::size_t begin = 0; begin < columns_; begin += Slices<Value>::kColumns) {
    const std::uint32_t* const starts = starts_.data() + begin / Slices<Value>::kColumns * (rows_ + 1);
    add_products(starts, kept_columns_.data(), values_.data(), rows_, inputs + begin * kTokenPanel, sums);
  }
}

template class SparseMatrix<float>;
template class SparseMatrix<std::uint16_t>;

}  // namespace secateur::cpu
