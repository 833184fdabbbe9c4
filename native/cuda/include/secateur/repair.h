// Repair of one projection: swaps make its mask better, and kept weights change so that they make up for those that are dropped. Formulas:
// docs/algorithms.md.
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

// How the kept weights of a projection make up for the dropped ones: not at all; fitted to the dense output on the mask as it is; on a mask
// that is chosen while they are fitted (ADMM, arXiv 2401.02938), then fitted on it; or as SparseGPT does (arXiv 2301.00774), column by
// column, which chooses what every row drops too.
enum class Repair { kNone, kFit, kAdmm, kSparseGpt };

struct RepairOptions {
  Repair method = Repair::kNone;
  // Share of the mean diagonal that is added to the diagonal of the Gram matrix.
  double damping = 0.01;
  // kFit, kAdmm: steps of conjugate gradients.
  int iterations = 20;
  // kAdmm, kSparseGpt: of the matrix, or of each block of its columns, the lowest are dropped whatever their row, as many as the rows'
  // counts add up to.
  bool across_rows = false;
  // kNone, kFit: before anything else, at most so many weights of each row come back for kept ones.
  std::size_t swaps = 0;
};

// A projection, what it drops and the Gram matrix of its input. All matrices are row-major.
struct RepairInput {
  std::size_t rows = 0;
  std::size_t columns = 0;
  // Calibration samples behind the Gram matrix.
  std::size_t samples = 0;
  // [rows, columns]
  std::span<const float> weights;
  // [columns, columns]: Σ xxᵀ over the input vectors of all tokens, without those of the samples that are held out.
  std::span<const float> gram;
  // [columns, columns]: of the samples that are held out, which tell how many swaps to keep; empty without swaps.
  std::span<const float> held_out_gram = {};
  // How far the inputs x of the pruned model have come from those of the dense one, x', and so the hidden states r that the output is added
  // to: [columns, columns] Σ (x' - x)xᵀ and, where it is added to any, [rows, columns] Σ (r' - r)xᵀ, over all tokens. With it the targets
  // are Wx' + r' - r instead of Wx. Empty without.
  std::span<const float> drift = {};
  // [rows, ceil(columns / 8)]: least significant bit first, 1 = dropped. kAdmm and kSparseGpt read only how many weights each row drops.
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
  // Of all rows.
  std::uint64_t swaps = 0;
  // ‖(W - Ŵ)X‖² / ‖WX‖² over all calibration tokens, with the given mask alone, with the swapped one, and with the repaired weights; 0
  // where the output is 0. With drift, W stands for the weights that come closest to the targets.
  double error_before_swaps = 0;
  double error_before = 0;
  double error_after = 0;
  // Share of the mean diagonal that was added; more than was asked for where the Gram matrix needed it.
  double damping = 0;
};

// What is given to a repair, beside what it cannot do without.
struct RepairExtras {
  bool swaps = false;
  bool drift = false;
};

// What repair_rows holds beside its input and its result, at most.
std::uint64_t repair_bytes(std::size_t rows, std::size_t columns, Repair method, RepairExtras extras, std::size_t threads);

// The result does not depend on the number of threads of the pool. Throws InvalidArgument for sizes that contradict each other, NonFinite
// for a Gram matrix that cannot be used whatever the damping and for weights too large for their type, and OutOfMemory.
RepairedRows repair_rows(const RepairInput& input, const RepairOptions& options, MemoryBudget& budget, ThreadPool& pool,
                         CallContext& context);

}  // namespace secateur
