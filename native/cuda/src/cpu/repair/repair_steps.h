// What a repair does with matrices, on the device that has them. When and why it is done is the same for all devices.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "secateur/repair.h"

namespace secateur {

// Of one projection, whose dense weights are the targets at first. Its values [rows, columns] are nothing yet. Masks, [rows, ceil(columns /
// 8)], and what is told of rows are in the memory of the host.
class RepairSteps {
 public:
  RepairSteps() = default;
  virtual ~RepairSteps() = default;
  RepairSteps(const RepairSteps&) = delete;
  RepairSteps& operator=(const RepairSteps&) = delete;

  // From here on the Gram matrix is that of all samples, those that are held out among them.
  virtual void add_held_out() = 0;
  // Finds U with UᵀU = (C + λI)⁻¹, C the Gram matrix with `of_dead` where its diagonal is 0, λ that share of its mean diagonal. False when
  // there is none.
  virtual bool find_factor(float of_dead, double damping) = 0;
  // Of the factor: the targets become the weights that make up for the drift too (docs/algorithms.md).
  virtual void shift_targets() = 0;
  // The values become the dense weights where the mask keeps them, else 0: of all rows, or of those that are marked by 1.
  virtual void mask_values(std::span<const std::uint8_t> mask, std::span<const std::uint8_t> marked = {}) = 0;
  // Of each row ‖wX‖² for the targets w.
  virtual void measure_targets(std::span<double> energies) = 0;
  // Of each row ‖(w - v)X‖² for the targets w and the values v.
  virtual void measure_values(std::span<double> errors) = 0;
  // The swaps of all rows, at most `most` of each, by the Gram matrices of the samples that are not and that are held out.
  virtual std::uint64_t swap(double damping, std::size_t most, std::span<std::uint8_t> mask) = 0;
  // Values that the mask keeps come closer to the targets; λ is what is added to the diagonal.
  virtual void fit(double damping, int iterations, std::span<const std::uint8_t> mask) = 0;
  // Values and mask are found together; rows drop that many, or all of them as many as those add up to. Throws NonFinite.
  virtual void choose_by_admm(std::span<const std::int32_t> counts, bool across_rows, std::span<std::uint8_t> mask) = 0;
  // SparseGPT by the factor: the same.
  virtual void prune_columns(std::span<const std::int32_t> counts, bool across_rows, std::span<std::uint8_t> mask) = 0;
  // To what is stored, as it is read then. Throws NonFinite when a value is too large for its type.
  virtual void round_values(ElementType stored) = 0;
  virtual std::vector<std::uint8_t> read_values(ElementType stored) = 0;
};

// Throws InvalidArgument for sizes and options that contradict each other; what the input says of weights is left out.
void require_valid_repair(const RepairInput& input, const RepairOptions& options);
// Of a valid input. Throws what the steps throw, and NonFinite for a Gram matrix that cannot be used whatever the damping.
RepairedRows repair_by_steps(const RepairInput& input, const RepairOptions& options, RepairSteps& steps);

}  // namespace secateur
