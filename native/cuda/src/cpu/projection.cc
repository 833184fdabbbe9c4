#include "cpu/projection.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "common/shard_layout.h"
#include "cpu/element_type.h"
#include "cpu/vector_math.h"

namespace secateur::cpu {

namespace {

constexpr std::size_t kMaskRows = 64;
constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHeadPartRows = 4096;

std::size_t panels_of(std::size_t tokens) { return (tokens + kTokenPanel - 1) / kTokenPanel; }
std::size_t aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

struct WorkspaceSizes {
  std::size_t narrowed = 0;
  std::size_t panels = 0;
  std::size_t sums = 0;

  WorkspaceSizes(std::span<const ProjectionForm> projections, std::size_t tokens) {
    for (const ProjectionForm& projection : projections) {
      if (projection.bf16) narrowed = std::max(narrowed, aligned(tokens * projection.columns * sizeof(std::uint16_t)));
      if (!projection.sparse) continue;
      panels = std::max(panels, panels_of(tokens) * kTokenPanel * projection.columns * sizeof(float));
      sums = std::max(sums, kTokenPanel * projection.rows * sizeof(float));
    }
  }
};

// The head's weight is packed and multiplied in parts of so many rows, any other as a whole.
std::size_t part_rows_of(TensorRole role, std::size_t rows) {
  return role == TensorRole::kHeadWeight ? std::min(kHeadPartRows, rows) : rows;
}

}  // namespace

std::size_t ProjectionWorkspace::bytes(std::span<const ProjectionForm> projections, std::size_t tokens) {
  const WorkspaceSizes sizes(projections, tokens);
  return sizes.narrowed + sizes.panels + sizes.sums;
}

ProjectionWorkspace::ProjectionWorkspace(std::uint8_t* memory, std::span<const ProjectionForm> projections, std::size_t tokens) {
  const WorkspaceSizes sizes(projections, tokens);
  narrowed_ = reinterpret_cast<std::uint16_t*>(memory);
  panels_ = reinterpret_cast<float*>(memory + sizes.narrowed);
  sums_ = reinterpret_cast<float*>(memory + sizes.narrowed + sizes.panels);
}

ProjectionInput ProjectionWorkspace::prepare(const float* values, std::size_t tokens, std::size_t width,
                                             std::initializer_list<const Projection*> readers) const {
  ProjectionInput input{values, tokens, width, nullptr, nullptr};
  if (std::ranges::any_of(readers, &Projection::reads_bf16)) {
    vector_math().narrow_bf16(values, tokens * width, narrowed_);
    input.narrowed = narrowed_;
  }
  if (std::ranges::any_of(readers, &Projection::is_sparse)) {
    for (std::size_t token = 0; token < tokens; token += kTokenPanel) {
      const std::size_t count = std::min(kTokenPanel, tokens - token);
      float* const panel = panels_ + token * width;
      vector_math().transpose(values + token * width, count, width, width, panel, kTokenPanel);
      if (count == kTokenPanel) continue;
      for (std::size_t column = 0; column < width; ++column)
        std::fill(panel + column * kTokenPanel + count, panel + (column + 1) * kTokenPanel, 0.0F);
    }
    input.panels = panels_;
  }
  return input;
}

Projection::Projection(TensorRole role, Matrix dense, Compute compute, MemoryBudget& budget, ThreadPool& pool, CallContext& context)
    : role_(role), name_(name_of(role)), dense_(std::move(dense)), part_rows_(part_rows_of(role, dense_.rows)) {
  if (compute == Compute::kBF16) {
    packed_.emplace(budget, dense_.rows, dense_.columns, part_rows_, name_);
    pack(pool, context);
  } else {
    // Weights that were pruned before are multiplied as they were when they were pruned: a job that resumes repeats every bit.
    choose_form(count_zeros(pool, context), budget, pool, context);
  }
}

ProjectionForm Projection::planned_form(TensorRole role, std::size_t rows, std::size_t columns, Compute compute, double sparsity) {
  const bool bf16 = compute == Compute::kBF16;
  const bool sparse = !bf16 && role != TensorRole::kHeadWeight && sparsity >= SparseMatrix::kWorthwhileSparsity;
  return {rows, columns, part_rows_of(role, rows), bf16, sparse};
}

std::uint64_t Projection::bytes(const ProjectionForm& form, double sparsity) {
  const std::size_t weights = form.rows * form.columns;
  std::uint64_t bytes = weights * sizeof(float);
  if (form.bf16) bytes += PackedMatrix::bytes(form.rows, form.columns, form.part_rows);
  if (form.sparse) {
    // A row drops a whole number of weights: up to one less than its share.
    const double kept = static_cast<double>(weights) * (1 - sparsity) + static_cast<double>(form.rows);
    bytes += SparseMatrix::bytes(form.rows, form.columns, std::min<std::uint64_t>(weights, static_cast<std::uint64_t>(kept)));
  }
  return bytes;
}

std::size_t Projection::count_zeros(ThreadPool& pool, CallContext& context) const {
  std::atomic<std::size_t> zeros{0};
  pool.parallel_for((dense_.rows + kMaskRows - 1) / kMaskRows, [&](std::size_t item, std::size_t) {
    context.check();
    const std::size_t rows = std::min(kMaskRows, dense_.rows - item * kMaskRows);
    zeros += vector_math().count_zeros(dense_.values.data() + item * kMaskRows * dense_.columns, rows * dense_.columns);
  });
  return zeros;
}

void Projection::choose_form(std::size_t zeros, MemoryBudget& budget, ThreadPool& pool, CallContext& context) {
  sparse_.reset();
  const double sparsity = static_cast<double>(zeros) / static_cast<double>(dense_.rows * dense_.columns);
  // The head is multiplied in parts, which sparse matrices do not have.
  if (sparsity < SparseMatrix::kWorthwhileSparsity || role_ == TensorRole::kHeadWeight) return;
  const PhaseScope scope(context, "mask", 0, static_cast<double>(dense_.rows * dense_.columns) * 2 * sizeof(float));
  sparse_.emplace(budget, pool, context, dense_.rows, dense_.columns, dense_.values.data(), "kept values of " + name_);
}

void Projection::pack(ThreadPool& pool, CallContext& context) {
  pool.parallel_for(packed_->parts(), [&](std::size_t part, std::size_t) {
    context.check();
    const PhaseScope scope(context, "convert", 0, static_cast<double>(part_rows_ * dense_.columns) * 6);
    packed_->pack(part, dense_.values.data());
  });
}

void Projection::apply_mask(std::span<const std::uint8_t> mask, MemoryBudget& budget, ThreadPool& pool, CallContext& context) {
  check_mask(role_, dense_.rows, dense_.columns, mask.size());
  const std::size_t row_bytes = (dense_.columns + 7) / 8;
  pool.parallel_for((dense_.rows + kMaskRows - 1) / kMaskRows, [&](std::size_t item, std::size_t) {
    context.check();
    const std::size_t end = std::min(dense_.rows, (item + 1) * kMaskRows);
    const PhaseScope scope(context, "mask", 0,
                           static_cast<double>((end - item * kMaskRows) * (dense_.columns * sizeof(float) + row_bytes)));
    for (std::size_t row = item * kMaskRows; row < end; ++row) {
      vector_math().drop(mask.data() + row * row_bytes, dense_.columns, dense_.values.data() + row * dense_.columns);
    }
  });
  renew_form(budget, pool, context);
}

void Projection::replace(ElementType stored, std::span<const std::uint8_t> bytes, MemoryBudget& budget, ThreadPool& pool,
                         CallContext& context) {
  const std::size_t row_bytes = dense_.columns * bytes_of(stored);
  if (bytes.size() != dense_.rows * row_bytes) {
    throw Error(ErrorCode::kInvalidArgument, "The values of " + name_ + " take " + std::to_string(dense_.rows * row_bytes) +
                                                 " bytes, not " + std::to_string(bytes.size()) + ".");
  }
  pool.parallel_for((dense_.rows + kMaskRows - 1) / kMaskRows, [&](std::size_t item, std::size_t) {
    context.check();
    const std::size_t first = item * kMaskRows;
    const std::size_t rows = std::min(kMaskRows, dense_.rows - first);
    const PhaseScope scope(context, "convert", 0, static_cast<double>(rows * (row_bytes + dense_.columns * sizeof(float))));
    widen(stored, bytes.data() + first * row_bytes, rows * dense_.columns, dense_.values.data() + first * dense_.columns);
  });
  renew_form(budget, pool, context);
}

void Projection::renew_form(MemoryBudget& budget, ThreadPool& pool, CallContext& context) {
  if (packed_) {
    pack(pool, context);
    return;
  }
  choose_form(count_zeros(pool, context), budget, pool, context);
}

void Projection::multiply(const ProjectionInput& input, const float* bias, const ProjectionWorkspace& workspace, float* result,
                          CallContext& context) const {
  // One product of a wide block takes long enough to be asked before each.
  context.check();
  const auto tokens = static_cast<double>(input.tokens);
  const auto weights = sparse_ ? static_cast<double>(sparse_->kept()) : static_cast<double>(dense_.rows * dense_.columns);
  const double weight_bytes = sparse_ ? 5 : packed_ ? 2 : 4;
  const double activation_bytes = tokens * static_cast<double>(dense_.columns * (packed_ ? 2 : 4) + dense_.rows * sizeof(float));
  const PhaseScope scope(context, "gemm", 2 * tokens * weights, weights * weight_bytes + activation_bytes);
  if (sparse_) {
    multiply_sparse(input, workspace, result);
  } else {
    for (std::size_t row = 0; row < dense_.rows; row += part_rows_) {
      multiply_part(input, row, std::min(part_rows_, dense_.rows - row), result + row);
    }
  }
  if (bias == nullptr) return;
  for (std::size_t token = 0; token < input.tokens; ++token) vector_math().add(result + token * dense_.rows, bias, dense_.rows);
}

void Projection::multiply_part(const ProjectionInput& input, std::size_t first, std::size_t count, float* result) const {
  if (packed_) {
    packed_->multiply(first / part_rows_, input.tokens, input.narrowed, result);
  } else {
    multiply_transposed(input.tokens, count, dense_.columns, 1.0F, input.values, input.width, dense_.values.data() + first * dense_.columns,
                        dense_.columns, result, count);
  }
}

void Projection::multiply_sparse(const ProjectionInput& input, const ProjectionWorkspace& workspace, float* result) const {
  for (std::size_t token = 0; token < input.tokens; token += kTokenPanel) {
    sparse_->multiply(input.panels + token * input.width, workspace.sums());
    vector_math().transpose(workspace.sums(), dense_.rows, std::min(kTokenPanel, input.tokens - token), kTokenPanel,
                            result + token * dense_.rows, dense_.rows);
  }
}

}  // namespace secateur::cpu
