// Repair of one projection: kept weights change so that they make up for those that are dropped. Formulas: docs/algorithms.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "secateur/call_context.h"
#include "secateur/element_type.h"
#include "secateur/memory_budget.h"
#include "secateur/thread_pool.h"

namespace secateur {

// How the kept weights of a projection make up for the dropped ones: not at all; fitted to the dense output on the mask as it is; or as
// SparseGPT does (arXiv 2301.00774), column by column, which chooses what every row drops too.
enum class Repair { kNone, kFit, kSparseGpt };

struct RepairOptions {
  Repair method = Repair::kNone;
  // Share of the mean diagonal that is added to the diagonal of the Gram matrix.
  double damping = 0.01;
  // kFit: steps of conjugate gradients.
  int iterations = 20;
  // kSparseGpt: each block of columns drops the lowest of all rows together, instead of its share of each row's own count.
  bool across_rows = false;
};

// A projection, what it drops and the Gram matrix of its input. All matrices are row-major.
struct RepairInput {
  std::size_t rows = 0;
  std::size_t columns = 0;
  // Calibration samples behind the Gram matrix.
  std::size_t samples = 0;
  // [rows, columns]
  std::span<const float> weights;
  // [columns, columns]: Σ xxᵀ over the input vectors of all tokens.
  std::span<const float> gram;
  // [rows, ceil(columns / 8)]: least significant bit first, 1 = dropped. kSparseGpt reads only how many weights each row drops.
  std::span<const std::uint8_t> mask;
  // What the repaired weights are rounded to, to the nearest.
  ElementType stored = ElementType::kF32;
};

struct RepairedRows {
  // [rows, columns], little-endian of the type asked for: kept weights as they are now, dropped ones +0.
  std::vector<std::uint8_t> weights;
  // As in the input.
  std::vector<std::uint8_t> mask;
  // [rows]
  std::vector<std::int32_t> dropped_per_row;
  std::uint64_t dropped = 0;
  // ‖(W - Ŵ)X‖² / ‖WX‖² over all calibration tokens, with the given mask alone and with the repaired weights; 0 where the output is 0.
  double error_before = 0;
  double error_after = 0;
  // Share of the mean diagonal that was added; more than was asked for where the Gram matrix needed it.
  double damping = 0;
};

// What repair_rows holds beside its input and its result, at most.
std::uint64_t repair_bytes(std::size_t rows, std::size_t columns, Repair method, std::size_t threads);

// The result does not depend on the number of threads of the pool. Throws InvalidArgument for sizes that contradict each other, NonFinite for
// a Gram matrix that cannot be used whatever the damping and for weights too large for their type, and OutOfMemory.
RepairedRows repair_rows(const RepairInput& input, const RepairOptions& options, MemoryBudget& budget, ThreadPool& pool,
                         CallContext& context);

}  // namespace secateur
