// The inner loop of the quality curves: adds weighted inputs one after the other and reports how each lines up with the sum before it and
// with the dense output.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/instruction_set.h"

namespace secateur::allocation {

// Samples are padded with zeros to a multiple of this, and input vectors are aligned to it.
inline constexpr std::size_t kSampleAlignment = 16;

// Inner products of an input vector.
struct alignas(16) Alignment {
  // With the sum of the weighted input vectors before it.
  double with_sum = 0;
  // With the dense output.
  double with_dense = 0;
};

enum class SweepPrecision { kFloat32, kFloat64 };

// The inputs of all columns, cut into panels of so many samples that a running sum of one fits the vector registers. A panel's values lie
// together, so that it stays in the cache while many rows are swept through it.
struct SweepPanels {
  // Of the sum of vectors and of the products with it; sums over lanes and panels are always float64.
  SweepPrecision precision = SweepPrecision::kFloat64;
  // Per panel: [columns, samples of the panel], 64-byte aligned.
  const float* inputs = nullptr;
  std::size_t columns = 0;
  // Padded samples of all panels: a multiple of kSampleAlignment.
  std::size_t stride = 0;
};

// The sweep of one row.
struct SweepTask {
  // [stride]: dense output of the row, zero where it is padded, 64-byte aligned. Only for alignments.
  const float* dense = nullptr;
  // [count]: the columns in the order they are added, and their weights (negative ones take away). Sums alone are quick where the columns
  // ascend.
  const std::uint32_t* columns = nullptr;
  const float* weights = nullptr;
  std::size_t count = 0;
  // [stride] of the precision's type, 64-byte aligned, in and out: the sum before the first and after the last column.
  void* sum = nullptr;
  // [count], out; null when only the sum is wanted.
  Alignment* alignments = nullptr;
  // Without alignments and in float64: 1.5 * 2^52 times a unit to whole multiples of which products are rounded before they are added; 0
  // where they are not. Where products are at most 2^51 units large and the sums of any of them 2^53, no sum is rounded.
  double rounder = 0;
};

// Squared norms and the inner product of a sum of vectors and the dense output.
struct SumProducts {
  double with_dense = 0;
  double squared_norm = 0;
  double dense_squared_norm = 0;
};

// The order of the sums is fixed by the instruction set; a task's results do not depend on the others.
struct SweepFunctions {
  void (*sweep)(const SweepPanels& panels, const SweepTask* tasks, std::size_t count);
  // sum: [stride] of the precision's type; dense: [stride]; both as in SweepTask.
  SumProducts (*products)(SweepPrecision precision, const void* sum, const float* dense, std::size_t stride);
  // Samples of a panel; the last may have fewer.
  std::size_t (*panel_samples)(SweepPrecision precision);
};

// The instruction set must be supported by this processor.
SweepFunctions sweep_functions(cpu::InstructionSet instruction_set);

}  // namespace secateur::allocation
