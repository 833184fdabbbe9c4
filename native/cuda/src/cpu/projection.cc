#include "cpu/projection.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "common/shard_layout.h"
#include "cpu/element_type.h"
#include "cpu/pair_math.h"
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
  std::size_t narrowed_panels = 0;
  std::size_t sums = 0;

  WorkspaceSizes(std::span<const ProjectionForm> projections, std::size_t tokens) {
    for (const auto& [rows, columns, part_rows, bf16, sparse] : projections) {
      if (!sparse) {
        if (bf16) narrowed = std::max(narrowed, aligned(tokens * columns * sizeof(std::uint16_t)));
        continue;
      }
      const std::size_t panel = kTokenPanel * columns;
      if (bf16) narrowed_panels = std::max(narrowed_panels, panels_of(tokens) * panel * sizeof(std::uint16_t));
      panels = std::max(panels, (bf16 ? 1 : panels_of(tokens)) * panel * sizeof(float));
      sums = std::max(sums, kTokenPanel * rows * sizeof(float));
    }
  }

  std::size_t total() const { return narrowed + panels + narrowed_panels + sums; }
};

// Where the sparse product is the faster one. The head is multiplied in parts, which sparse matrices do not have.
bool is_multiplied_sparse(TensorRole role, Compute compute, double sparsity) {
  if (role == TensorRole::kHeadWeight) return false;
  if (compute == Compute::kF32) return sparsity >= SparseMatrix<float>::kWorthwhileSparsity;
  // Nothing beats dense products on tiles.
  return pair_math() != nullptr && !multiplies_bf16_in_tiles() && sparsity >= SparseMatrix<std::uint16_t>::kWorthwhileSparsity;
}

// The head's weight is packed and multiplied in parts of so many rows, any other as a whole.
std::size_t part_rows_of(TensorRole role, std::size_t rows) {
  return role == TensorRole::kHeadWeight ? std::min(kHeadPartRows, rows) : rows;
}

}  // namespace

std::size_t ProjectionWorkspace::bytes(std::span<const ProjectionForm> projections, std::size_t tokens) {
  return WorkspaceSizes(projections, tokens).total();
}

ProjectionWorkspace::ProjectionWorkspace(std::uint8_t* memory, std::span<const ProjectionForm> projections, std::size_t tokens) {
  const WorkspaceSizes sizes(projections, tokens);
  narrowed_ = reinterpret_cast<std::uint16_t*>(memory);
  panels_ = reinterpret_cast<float*>(memory + sizes.narrowed);
  narrowed_panels_ = reinterpret_cast<std::uint16_t*>(memory + sizes.narrowed + sizes.panels);
  sums_ = reinterpret_cast<float*>(memory + sizes.narrowed + sizes.panels + sizes.narrowed_panels);
}

ProjectionInput ProjectionWorkspace::prepare(const float* values, std::size_t tokens, std::size_t width,
                                             std::initializer_list<const Projection*> readers) const {
  ProjectionInput input{values, tokens, width};
  if (std::ranges::any_of(readers, &Projection::reads_narrowed)) {
    vector_math().narrow_bf16(values, tokens * width, narrowed_);
    input.narrowed = narrowed_;
  }
  const bool narrowed = std::ranges::any_of(readers, &Projection::reads_narrowed_panels);
  if (!narrowed && std::ranges::none_of(readers, &Projection::reads_panels)) return input;
  for (std::size_t token = 0; token < tokens; token += kTokenPanel) {
    const std::size_t count = std::min(kTokenPanel, tokens - token);
    float* const panel = panels_ + (narrowed ? 0 : token * width);
    vector_math().transpose(values + token * width, count, width, width, panel, kTokenPanel);
    for (std::size_t column = 0; count < kTokenPanel && column < width; ++column)
      std::fill(panel + column * kTokenPanel + count, panel + (column + 1) * kTokenPanel, 0.0F);
    if (narrowed) pair_math()->narrow(panel, width * kTokenPanel, narrowed_panels_ + token * width);
  }
  if (narrowed) {
    input.narrowed_panels = narrowed_panels_;
  } else {
    input.panels = panels_;
  }
  return input;
}

Projection::Projection(TensorRole role, Matrix dense, Compute compute, MemoryBudget& budget, ThreadPool& pool, CallContext& context)
    : role_(role), name_(name_of(role)), dense_(std::move(dense)), compute_(compute), part_rows_(part_rows_of(role, dense_.rows)) {
  // Weights that were pruned before are multiplied as they were when they were pruned: a job that resumes repeats every bit.
  choose_form(budget, pool, context);
}

ProjectionForm Projection::form() const noexcept {
  return {dense_.rows, dense_.columns, part_rows_, compute_ == Compute::kBF16, reads_panels() || reads_narrowed_panels()};
}

ProjectionForm Projection::planned_form(TensorRole role, std::size_t rows, std::size_t columns, Compute compute, double sparsity) {
  const bool sparse = is_multiplied_sparse(role, compute, sparsity);
  return {rows, columns, part_rows_of(role, rows), compute == Compute::kBF16, sparse};
}

std::uint64_t Projection::bytes(const ProjectionForm& form, double sparsity) {
  const std::size_t weights = form.rows * form.columns;
  // A row drops a whole number of weights: up to one less than its share.
  const double kept = static_cast<double>(weights) * (1 - sparsity) + static_cast<double>(form.rows);
  const auto kept_weights = std::min<std::uint64_t>(weights, static_cast<std::uint64_t>(kept));
  const std::uint64_t dense = weights * sizeof(float);
  if (!form.bf16) return dense + (form.sparse ? SparseMatrix<float>::bytes(form.rows, form.columns, kept_weights) : 0);
  // Until it is pruned it is packed.
  const std::uint64_t packed = PackedMatrix::bytes(form.rows, form.columns, form.part_rows);
  return dense + (form.sparse ? std::max(packed, SparseMatrix<std::uint16_t>::bytes(form.rows, form.columns, kept_weights)) : packed);
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

void Projection::choose_form(MemoryBudget& budget, ThreadPool& pool, CallContext& context) {
  const double weights = static_cast<double>(dense_.rows * dense_.columns);
  if (!is_multiplied_sparse(role_, compute_, static_cast<double>(count_zeros(pool, context)) / weights)) {
    if (compute_ == Compute::kBF16) return pack(budget, pool, context);
    multiplied_.emplace<std::monostate>();
    return;
  }
  // Before its memory is asked for again.
  multiplied_.emplace<std::monostate>();
  const PhaseScope scope(context, "mask", 0, weights * 2 * sizeof(float));
  const std::string purpose = "kept values of " + name_;
  if (compute_ == Compute::kBF16) {
    multiplied_.emplace<SparseMatrix<std::uint16_t>>(budget, pool, context, dense_.rows, dense_.columns, dense_.values.data(), purpose);
  } else {
    multiplied_.emplace<SparseMatrix<float>>(budget, pool, context, dense_.rows, dense_.columns, dense_.values.data(), purpose);
  }
}

void Projection::pack(MemoryBudget& budget, ThreadPool& pool, CallContext& context) {
  if (!std::holds_alternative<PackedMatrix>(multiplied_)) {
    multiplied_.emplace<std::monostate>();
    multiplied_.emplace<PackedMatrix>(budget, dense_.rows, dense_.columns, part_rows_, name_);
  }
  auto& packed = std::get<PackedMatrix>(multiplied_);
  pool.parallel_for(packed.parts(), [&](std::size_t part, std::size_t) {
    context.check();
    const PhaseScope scope(context, "convert", 0, static_cast<double>(part_rows_ * dense_.columns) * 6);
    packed.pack(part, dense_.values.data());
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
  choose_form(budget, pool, context);
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
  choose_form(budget, pool, context);
}

double Projection::multiplied_weights() const noexcept {
  if (reads_panels()) return static_cast<double>(std::get<SparseMatrix<float>>(multiplied_).kept());
  if (reads_narrowed_panels()) return static_cast<double>(std::get<SparseMatrix<std::uint16_t>>(multiplied_).kept());
  return static_cast<double>(dense_.rows * dense_.columns);
}

double Projection::bytes_of_multiplied_weight() const noexcept {
  const std::size_t value = compute_ == Compute::kBF16 ? sizeof(std::uint16_t) : sizeof(float);
  return static_cast<double>(value + (form().sparse ? sizeof(std::uint8_t) : 0));
}

void Projection::multiply(const ProjectionInput& input, const float* bias, const ProjectionWorkspace& workspace, float* result,
                          CallContext& context) const {
  // One product of a wide block takes long enough to be asked before each.
  context.check();
  const auto tokens = static_cast<double>(input.tokens);
  const std::size_t input_bytes = compute_ == Compute::kBF16 ? sizeof(std::uint16_t) : sizeof(float);
  const double activation_bytes = tokens * static_cast<double>(dense_.columns * input_bytes + dense_.rows * sizeof(float));
  const double weights = multiplied_weights();
  const PhaseScope scope(context, "gemm", 2 * tokens * weights, weights * bytes_of_multiplied_weight() + activation_bytes);
  if (const auto* const sparse = std::get_if<SparseMatrix<float>>(&multiplied_)) {
    multiply_sparse(*sparse, input.panels, input, workspace, result);
  } else if (const auto* const narrowed = std::get_if<SparseMatrix<std::uint16_t>>(&multiplied_)) {
    multiply_sparse(*narrowed, input.narrowed_panels, input, workspace, result);
  } else {
    for (std::size_t row = 0; row < dense_.rows; row += part_rows_) {
      multiply_part(input, row, std::min(part_rows_, dense_.rows - row), result + row);
    }
  }
  if (bias == nullptr) return;
  for (std::size_t token = 0; token < input.tokens; ++token) vector_math().add(result + token * dense_.rows, bias, dense_.rows);
}

void Projection::multiply_part(const ProjectionInput& input, std::size_t first, std::size_t count, float* result) const {
  if (const auto* const packed = std::get_if<PackedMatrix>(&multiplied_)) {
    packed->multiply(first / part_rows_, input.tokens, input.narrowed, result);
  } else {
    multiply_transposed(input.tokens, count, dense_.columns, 1.0F, input.values, input.width, dense_.values.data() + first * dense_.columns,
                        dense_.columns, result, count);
  }
}

template <class Value>
void Projection::multiply_sparse(const SparseMatrix<Value>& weight, const Value* panels, const ProjectionInput& input,
                                 const ProjectionWorkspace& workspace, float* result) const {
  for (std::size_t token = 0; token < input.tokens; token += kTokenPanel) {
    weight.multiply(panels + token * input.width, workspace.sums());
    vector_math().transpose(workspace.sums(), dense_.rows, std::min(kTokenPanel, input.tokens - token), kTokenPanel,
                            result + token * dense_.rows, dense_.rows);
  }
}

}  // namespace secateur::cpu
