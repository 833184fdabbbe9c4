// Repair of a projection on the GPU; the host chooses which weights of a row are swapped.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/repair/repair_steps.h"
#include "cuda/device_buffer.h"
#include "cuda/kernels/scored_weights.h"
#include "cuda/matrix_library.h"
#include "cuda/stream.h"
#include "secateur/thread_pool.h"

namespace secateur::gpu {

// What a repair works with.
struct RepairTools {
  SessionMemory& memory;
  MatrixLibrary& products;
  const Stream& stream;
  Timeline& timeline;
  // Of the host.
  ThreadPool& pool;
  CallContext& context;
};

// Device memory of a repair, besides the weights.
std::uint64_t device_repair_bytes(std::size_t rows, std::size_t columns, Repair method, RepairExtras extras);
// Memory of the host that choosing swaps takes.
std::uint64_t host_swap_bytes(std::size_t rows, std::size_t columns, std::size_t threads);

class DeviceRepair final : public RepairSteps {
 public:
  // weights: device [rows, columns] float32; `input.weights` is not used. The input is valid and outlives this.
  DeviceRepair(const RepairInput& input, const float* weights, const RepairTools& tools);

  void add_held_out() override;
  bool find_factor(float of_dead, double damping) override;
  void shift_targets() override;
  void mask_values(std::span<const std::uint8_t> mask, std::span<const std::uint8_t> marked) override;
  void measure_targets(std::span<double> energies) override;
  void measure_values(std::span<double> errors) override;
  std::uint64_t swap(double damping, std::size_t most, std::span<std::uint8_t> mask) override;
  void fit(double damping, int iterations, std::span<const std::uint8_t> mask) override;
  void choose_by_admm(std::span<const std::int32_t> counts, bool across_rows, std::span<std::uint8_t> mask) override;
  void prune_columns(std::span<const std::int32_t> counts, bool across_rows, std::span<std::uint8_t> mask) override;
  void round_values(ElementType stored) override;
  std::vector<std::uint8_t> read_values(ElementType stored) override;

 private:
  class Admm;

  template <class T>
  void upload(std::span<const T> from, T* to);
  template <class T>
  void download(const T* from, std::span<T> to);
  void copy(const float* from, float* to, std::size_t size);
  void begin_phase(double flops);
  // Waits for the device.
  void finish();
  // result [count, columns] = left [count, columns] · matrix [columns, columns], which is symmetric or transposed.
  void multiply(const float* left, const float* matrix, std::size_t count, float* result);
  // Calls visit(first row, rows) for as many rows at a time as panels hold.
  template <class Visit>
  void for_panels(const Visit& visit);
  void measure(bool without_values, std::span<double> errors);
  // mask: device [scored rows, ceil(scored columns / 8)]: the `count` lowest scores of all rows together.
  void mark_lowest_of(const ScoredWeights& scored, std::uint64_t count, std::uint8_t* mask);
  // Calls visit(first value, values, them as they are stored, in device memory) for some rows at a time.
  template <class Visit>
  void for_narrowed(ElementType stored, const Visit& visit);
  // The factor's upper half, narrowed, as a lower one; makes room for it.
  void transpose_found_factor();
  // inverse [columns, columns] = UᵀU, from the transposed factor, in place of the factor.
  float* make_inverse();

  float* panel(std::size_t index) { return panels_.data() + index * panel_rows_ * columns_; }

  const RepairInput& input_;
  RepairTools tools_;
  std::size_t rows_;
  std::size_t columns_;
  std::size_t panel_rows_;
  const float* weights_;
  // [columns, columns]: of the samples that are not held out; of those that are, and of all, where some are.
  DeviceBuffer<float> gram_;
  DeviceBuffer<float> held_out_;
  DeviceBuffer<float> sum_;
  // The Gram matrix of all samples.
  const float* whole_gram_ = nullptr;
  // [rows, columns]: what values are to come close to.
  const float* targets_ = nullptr;
  DeviceBuffer<float> shifted_;
  DeviceBuffer<float> values_;
  DeviceBuffer<std::uint8_t> mask_;
  // [panel rows, columns] three times, and a number of each row.
  DeviceBuffer<float> panels_;
  DeviceBuffer<double> numbers_;
  // [columns, columns], while it is needed; and the columns whose inputs are always 0.
  DeviceBuffer<double> factor_;
  DeviceBuffer<float> transposed_;
  DeviceBuffer<std::uint8_t> dead_;
  DeviceBuffer<unsigned> failed_;
};

}  // namespace secateur::gpu
