// A weight that activations are projected by, in the form its products run fastest in, and the activations in the form it reads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <variant>

#include "cpu/gemm.h"
#include "cpu/sparse_matrix.h"
#include "secateur/backend.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

// A float32 matrix [rows, columns]; vectors have one row.
struct Matrix {
  std::size_t rows = 0;
  std::size_t columns = 0;
  Buffer<float> values;
};

class Projection;

// What decides how much memory a projection's products take besides its weight.
struct ProjectionForm {
  std::size_t rows = 0;
  std::size_t columns = 0;
  // Rows multiplied at a time: all, but for the head.
  std::size_t part_rows = 0;
  bool bf16 = false;
  bool sparse = false;
};

// A tile of activations [tokens, width], and copies of it that some projections read instead.
struct ProjectionInput {
  const float* values = nullptr;
  std::size_t tokens = 0;
  std::size_t width = 0;
  // bfloat16 [tokens, width], or null.
  const std::uint16_t* narrowed = nullptr;
  // Per kTokenPanel tokens: [width, kTokenPanel], or null.
  const float* panels = nullptr;
  // The same in bfloat16, in the order of PairMath::narrow, or null.
  const std::uint16_t* narrowed_panels = nullptr;
};

// One thread's memory for the inputs and sums of projections, for tiles of up to `tokens` tokens.
class ProjectionWorkspace {
 public:
  // What the projections of a block need at most. Bytes are multiples of 64.
  static std::size_t bytes(std::span<const ProjectionForm> projections, std::size_t tokens);

  // The memory outlives this and is aligned to 64 bytes.
  ProjectionWorkspace(std::uint8_t* memory, std::span<const ProjectionForm> projections, std::size_t tokens);

  // Makes the copies that the projections of one input site read. The result is valid until the next call.
  ProjectionInput prepare(const float* values, std::size_t tokens, std::size_t width,
                          std::initializer_list<const Projection*> readers) const;
  float* sums() const noexcept { return sums_; }

 private:
  std::uint16_t* narrowed_ = nullptr;
  // Of bfloat16 panels one at a time passes through here.
  float* panels_ = nullptr;
  std::uint16_t* narrowed_panels_ = nullptr;
  float* sums_ = nullptr;
};

class Projection {
 public:
  Projection(TensorRole role, Matrix dense, Compute compute, MemoryBudget& budget, ThreadPool& pool, CallContext& context);

  const Matrix& dense() const noexcept { return dense_; }
  // The memory of its values; the projection is of no use after that.
  Buffer<float> take_values() && noexcept { return std::move(dense_.values); }
  ProjectionForm form() const noexcept;
  // Whether products read this copy of their input.
  bool reads_narrowed() const noexcept { return std::holds_alternative<PackedMatrix>(multiplied_); }
  bool reads_panels() const noexcept { return std::holds_alternative<SparseMatrix<float>>(multiplied_); }
  bool reads_narrowed_panels() const noexcept { return std::holds_alternative<SparseMatrix<std::uint16_t>>(multiplied_); }

  // The form of a weight of which a share is dropped.
  static ProjectionForm planned_form(TensorRole role, std::size_t rows, std::size_t columns, Compute compute, double sparsity);
  // The most memory a weight of that form takes.
  static std::uint64_t bytes(const ProjectionForm& form, double sparsity);

  // Sets dropped weights to +0; mask: [rows, ceil(columns / 8)], least significant bit first, 1 = dropped. Throws InvalidArgument when it
  // has another size.
  void apply_mask(std::span<const std::uint8_t> mask, MemoryBudget& budget, ThreadPool& pool, CallContext& context);

  // The weight's values become those stored, little-endian, of any alignment. Throws InvalidArgument when there are more or fewer.
  void replace(ElementType stored, std::span<const std::uint8_t> bytes, MemoryBudget& budget, ThreadPool& pool, CallContext& context);

  // result[tokens, rows] = input · weightᵀ + bias (when not null). Threads may multiply side by side. The head's weight takes one token.
  void multiply(const ProjectionInput& input, const float* bias, const ProjectionWorkspace& workspace, float* result,
                CallContext& context) const;

  // The head's weight is multiplied in parts of some rows, so that logits stay few whatever the vocabulary.
  std::size_t part_rows() const noexcept { return part_rows_; }
  // result[tokens, count] = input · (rows first to first + count)ᵀ; `first` begins a part and `count` ends it.
  void multiply_part(const ProjectionInput& input, std::size_t first, std::size_t count, float* result) const;

 private:
  // The float32 weight itself, or what takes its place in products.
  using Multiplied = std::variant<std::monostate, PackedMatrix, SparseMatrix<float>, SparseMatrix<std::uint16_t>>;

  // Makes what is multiplied with from values that are new: the sparse form where so many zeros make it worthwhile.
  void choose_form(MemoryBudget& budget, ThreadPool& pool, CallContext& context);
  void pack(MemoryBudget& budget, ThreadPool& pool, CallContext& context);
  std::size_t count_zeros(ThreadPool& pool, CallContext& context) const;
  // Kept weights and bytes of one of them.
  double multiplied_weights() const noexcept;
  double bytes_of_multiplied_weight() const noexcept;
  template <class Value>
  void multiply_sparse(const SparseMatrix<Value>& weight, const Value* panels, const ProjectionInput& input,
                       const ProjectionWorkspace& workspace, float* result) const;

  TensorRole role_;
  std::string name_;
  Matrix dense_;
  Compute compute_;
  std::size_t part_rows_;
  Multiplied multiplied_;
};

}  // namespace secateur::cpu
