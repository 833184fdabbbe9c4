#include "cuda/device_repair.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "cpu/repair/admm_schedule.h"
#include "cpu/repair/swap_row.h"
#include "cuda/kernels/admm.h"
#include "cuda/kernels/conjugate_gradients.h"
#include "cuda/kernels/damp_gram_matrix.h"
#include "cuda/kernels/elementwise.h"
#include "cuda/kernels/gram_inverse.h"
#include "cuda/kernels/inverse_factor.h"
#include "cuda/kernels/lowest_scores.h"
#include "cuda/kernels/mask.h"
#include "cuda/kernels/matrix_product_f32.h"
#include "cuda/kernels/row_dots.h"
#include "cuda/kernels/row_order.h"
#include "cuda/kernels/sparsegpt.h"
#include "cuda/lowest_scores_memory.h"
#include "cuda/transfers.h"

namespace secateur::gpu {

namespace {

// Rows whose products are made at a time: enough to fill a device.
constexpr std::size_t kPanelRows = 2048;
constexpr std::size_t kPanels = 3;
// Of the scratch memory for sorting some rows at a time.
constexpr std::size_t kSortBytes = std::size_t{256} << 20;
constexpr std::size_t kSortMatrices = 4;
// What is in place of a factor begins on a block of its own.
constexpr std::size_t kHalfAlignment = kBlockAlignment / sizeof(float);

std::size_t panel_rows(std::size_t rows) { return std::min(kPanelRows, rows); }
std::size_t mask_bytes(std::size_t columns) { return (columns + 7) / 8; }
std::size_t sort_rows(std::size_t rows, std::size_t columns) {
  return std::clamp<std::size_t>(kSortBytes / (kSortMatrices * columns * sizeof(std::uint32_t)), 1, rows);
}
// Float64 values of a factor, in whose place two matrices of float32 fit.
std::size_t factor_values(std::size_t columns) { return (columns * columns + kHalfAlignment - 1) / kHalfAlignment * kHalfAlignment; }
double as_double(std::size_t value) { return static_cast<double>(value); }

}  // namespace

std::uint64_t device_repair_bytes(std::size_t rows, std::size_t columns, Repair method, RepairExtras extras) {
  if (method == Repair::kNone && !extras.swaps) return 0;
  const std::size_t matrix = columns * columns;
  const std::size_t weights = rows * columns;
  const std::uint64_t factor = block_bytes<double>(factor_values(columns)) + block_bytes<std::uint8_t>(columns) + block_bytes<unsigned>(1);
  const std::uint64_t inverse = factor + block_bytes<float>(matrix);
  // The diagonal of a fit, or a flag.
  std::uint64_t own = std::max(block_bytes<float>(columns), block_bytes<unsigned>(1));
  if (method == Repair::kAdmm) {
    const std::size_t sorted = sort_rows(rows, columns) * columns;
    own = std::max(own, inverse + block_bytes<float>(columns) + block_bytes<float>(weights) + block_bytes<std::int32_t>(rows) +
                            kSortMatrices * block_bytes<std::uint32_t>(sorted) + LowestScoresMemory::bytes(rows));
  }
  if (method == Repair::kSparseGpt) {
    own = std::max(own, factor + block_bytes<std::int32_t>(rows) + block_bytes<float>(rows * kSparseGptColumns) +
                            block_bytes<std::uint8_t>(rows * mask_bytes(kSparseGptColumns)) + LowestScoresMemory::bytes(rows));
  }
  if (extras.drift) own = std::max(own, inverse);
  const std::uint64_t shifted = extras.drift ? block_bytes<float>(weights) : 0;
  const std::uint64_t grams = (extras.swaps ? 3 : 1) * block_bytes<float>(matrix);
  return grams + shifted + block_bytes<float>(weights) + block_bytes<std::uint8_t>(rows * mask_bytes(columns)) +
         block_bytes<std::uint8_t>(rows) + block_bytes<float>(kPanels * panel_rows(rows) * columns) +
         block_bytes<double>(panel_rows(rows)) + own;
}

std::uint64_t host_swap_bytes(std::size_t rows, std::size_t columns, std::size_t threads) {
  const std::uint64_t weights = (rows + kPanels * panel_rows(rows)) * columns * sizeof(float);
  return weights + threads * cpu::kSwapVectors * columns * sizeof(double) + rows * sizeof(std::size_t);
}

DeviceRepair::DeviceRepair(const RepairInput& input, const float* weights, const RepairTools& tools)
    : input_(input),
      tools_(tools),
      rows_(input.rows),
      columns_(input.columns),
      panel_rows_(panel_rows(input.rows)),
      weights_(weights),
      gram_(tools.memory, input.gram.size(), "a Gram matrix"),
      targets_(weights),
      values_(tools.memory, rows_ * columns_, "repaired weights"),
      mask_(tools.memory, rows_ * mask_bytes(columns_), "a mask"),
      panels_(tools.memory, kPanels * panel_rows_ * columns_, "the repair of a projection"),
      numbers_(tools.memory, panel_rows_, "the repair of a projection") {
  upload(input.gram, gram_.data());
  whole_gram_ = gram_.data();
}

template <class T>
void DeviceRepair::upload(std::span<const T> from, T* to) {
  gpu::upload(from, to, tools_.stream, "uploading a repair's input");
}

template <class T>
void DeviceRepair::download(const T* from, std::span<T> to) {
  gpu::download(from, to, tools_.stream, "reading what a repair made");
}

void DeviceRepair::copy(const float* from, float* to, std::size_t size) {
  check(cudaMemcpyAsync(to, from, size * sizeof(float), cudaMemcpyDeviceToDevice, tools_.stream.get()), "copying weights");
}

void DeviceRepair::begin_phase(double flops) {
  tools_.context.check();
  tools_.timeline.begin("repair", flops, 0);
}

void DeviceRepair::finish() { tools_.timeline.finish(tools_.context, "Repairing weights"); }

void DeviceRepair::multiply(const float* left, const float* matrix, std::size_t count, float* result) {
  check(tools_.products.multiply(MatrixProductF32{count, columns_, columns_, left, matrix, nullptr, result}, tools_.stream.get()),
        "a matrix product");
}

template <class Visit>
void DeviceRepair::for_panels(const Visit& visit) {
  for (std::size_t first = 0; first < rows_; first += panel_rows_) {
    tools_.context.check();
    visit(first, std::min(panel_rows_, rows_ - first));
  }
}

void DeviceRepair::add_held_out() {
  held_out_ = DeviceBuffer<float>(tools_.memory, input_.gram.size(), "a Gram matrix");
  sum_ = DeviceBuffer<float>(tools_.memory, input_.gram.size(), "the Gram matrix of all samples");
  upload(input_.held_out_gram, held_out_.data());
  copy(gram_.data(), sum_.data(), sum_.size());
  check(add(sum_.data(), held_out_.data(), sum_.size(), tools_.stream.get()), "adding Gram matrices");
  whole_gram_ = sum_.data();
}

bool DeviceRepair::find_factor(float of_dead, double damping) {
  const cudaStream_t stream = tools_.stream.get();
  if (factor_.empty()) factor_ = DeviceBuffer<double>(tools_.memory, factor_values(columns_), "the factor of a Gram matrix");
  if (dead_.empty()) dead_ = DeviceBuffer<std::uint8_t>(tools_.memory, columns_, "the factor of a Gram matrix");
  if (failed_.empty()) failed_ = DeviceBuffer<unsigned>(tools_.memory, 1, "the factor of a Gram matrix");
  tools_.context.check();
  tools_.timeline.begin("factor", as_double(columns_) * as_double(columns_) * as_double(columns_), 0);
  check(widen_gram({columns_, whole_gram_, nullptr, 0, factor_.data()}, stream), "widening a Gram matrix");
  check(damp_gram_matrix(factor_.data(), columns_, of_dead, damping, dead_.data(), stream), "damping a Gram matrix");
  check(cudaMemsetAsync(failed_.data(), 0, sizeof(unsigned), stream), "clearing a flag");
  check(inverse_factor(factor_.data(), columns_, failed_.data(), stream), "the factor of a Gram matrix");
  unsigned failed = 0;
  download(failed_.data(), std::span(&failed, 1));
  finish();
  return failed == 0;
}

void DeviceRepair::transpose_found_factor() {
  transposed_ = DeviceBuffer<float>(tools_.memory, columns_ * columns_, "the inverse of a Gram matrix");
  check(transpose_factor(factor_.data(), columns_, transposed_.data(), tools_.stream.get()), "the inverse of a Gram matrix");
}

float* DeviceRepair::make_inverse() {
  float* const inverse = reinterpret_cast<float*>(factor_.data());
  multiply(transposed_.data(), transposed_.data(), columns_, inverse);
  return inverse;
}

void DeviceRepair::shift_targets() {
  const cudaStream_t stream = tools_.stream.get();
  shifted_ = DeviceBuffer<float>(tools_.memory, rows_ * columns_, "the targets of a projection");
  begin_phase(as_double(4 * rows_ + 2 * columns_) * as_double(columns_) * as_double(columns_));
  transpose_found_factor();
  float* const inverse = make_inverse();
  // In the other half of what the factor had.
  float* const turned = inverse + factor_values(columns_);
  upload(input_.drift.first(columns_ * columns_), transposed_.data());
  check(transpose(transposed_.data(), columns_, turned, stream), "the drift of the inputs");
  const std::span<const float> of_hidden_states = input_.drift.subspan(columns_ * columns_);
  for_panels([&](std::size_t first, std::size_t count) {
    const std::size_t size = count * columns_;
    const float* const weights = weights_ + first * columns_;
    float* const shifted = shifted_.data() + first * columns_;
    multiply(weights, turned, count, panel(0));
    if (!of_hidden_states.empty()) {
      upload(of_hidden_states.subspan(first * columns_, size), panel(1));
      check(add(panel(0), panel(1), size, stream), "the drift of hidden states");
    }
    multiply(panel(0), inverse, count, panel(1));
    copy(weights, shifted, size);
    check(add(shifted, panel(1), size, stream), "the targets of a projection");
  });
  finish();
  targets_ = shifted_.data();
  factor_ = {};
  transposed_ = {};
  dead_ = {};
  failed_ = {};
}

void DeviceRepair::mask_values(std::span<const std::uint8_t> mask, std::span<const std::uint8_t> marked) {
  begin_phase(0);
  upload(mask, mask_.data());
  DeviceBuffer<std::uint8_t> rows(tools_.memory, marked.size(), "the repair of a projection");
  if (!marked.empty()) upload(marked, rows.data());
  check(copy_masked(weights_, mask_.data(), marked.empty() ? nullptr : rows.data(), rows_, columns_, values_.data(), tools_.stream.get()),
        "masking weights");
}

void DeviceRepair::measure_targets(std::span<double> energies) { measure(true, energies); }

void DeviceRepair::measure_values(std::span<double> errors) { measure(false, errors); }

void DeviceRepair::measure(bool without_values, std::span<double> errors) {
  const cudaStream_t stream = tools_.stream.get();
  begin_phase(2 * as_double(rows_) * as_double(columns_) * as_double(columns_));
  for_panels([&](std::size_t first, std::size_t count) {
    const std::size_t begin = first * columns_;
    copy(targets_ + begin, panel(0), count * columns_);
    if (!without_values) check(subtract(panel(0), values_.data() + begin, count * columns_, stream), "the error of a projection");
    multiply(panel(0), whole_gram_, count, panel(1));
    check(row_dots(panel(0), panel(1), count, columns_, numbers_.data(), stream), "the error of a projection");
    download(numbers_.data(), errors.subspan(first, count));
  });
  finish();
  for (double& error : errors) error = std::max(error, 0.0);
}

std::uint64_t DeviceRepair::swap(double damping, std::size_t most, std::span<std::uint8_t> mask) {
  const cudaStream_t stream = tools_.stream.get();
  std::vector<float> targets(rows_ * columns_);
  download(targets_, std::span(targets));
  upload(std::span<const std::uint8_t>(mask), mask_.data());
  const cpu::SwapTask task{rows_, columns_, targets, input_.gram, input_.held_out_gram, damping, most, mask.data()};
  std::vector<float> lost(panel_rows_ * columns_);
  std::vector<float> fitting(lost.size());
  std::vector<float> held_out(lost.size());
  std::vector<double> scratch(tools_.pool.size() * cpu::kSwapVectors * columns_);
  std::vector<std::size_t> swaps(rows_);
  for_panels([&](std::size_t first, std::size_t count) {
    const std::size_t size = count * columns_;
    begin_phase(4 * as_double(count) * as_double(columns_) * as_double(columns_));
    // What the mask keeps is taken off what there is.
    const std::uint8_t* const bits = mask_.data() + first * mask_bytes(columns_);
    check(copy_masked(targets_ + first * columns_, bits, nullptr, count, columns_, panel(2), stream), "masking weights");
    copy(targets_ + first * columns_, panel(0), size);
    check(subtract(panel(0), panel(2), size, stream), "what a mask drops");
    multiply(panel(0), gram_.data(), count, panel(1));
    multiply(panel(0), held_out_.data(), count, panel(2));
    download(panel(0), std::span(lost).first(size));
    download(panel(1), std::span(fitting).first(size));
    download(panel(2), std::span(held_out).first(size));
    finish();
    const PhaseScope scope(tools_.context, "swap");
    tools_.pool.parallel_for(count, [&](std::size_t row, std::size_t worker) {
      tools_.context.check();
      const std::size_t begin = row * columns_;
      swaps[first + row] = cpu::swap_row(task, first + row, lost.data() + begin, fitting.data() + begin, held_out.data() + begin,
                                         scratch.data() + worker * cpu::kSwapVectors * columns_);
    });
  });
  return std::accumulate(swaps.begin(), swaps.end(), std::uint64_t{0});
}

void DeviceRepair::fit(double damping, int iterations, std::span<const std::uint8_t> mask) {
  const cudaStream_t stream = tools_.stream.get();
  begin_phase(2 * as_double(static_cast<std::size_t>(iterations) + 1) * as_double(rows_) * as_double(columns_) * as_double(columns_));
  upload(mask, mask_.data());
  std::vector<float> diagonal(columns_);
  for (std::size_t column = 0; column < columns_; ++column) {
    const std::size_t place = column * columns_ + column;
    const float own = input_.held_out_gram.empty() ? input_.gram[place] : input_.gram[place] + input_.held_out_gram[place];
    const double damped = static_cast<double>(own) + damping;
    diagonal[column] = damped > 0 ? static_cast<float>(1 / damped) : 0.0F;
  }
  DeviceBuffer<float> inverse_diagonal(tools_.memory, columns_, "the fit of a projection");
  upload(std::span<const float>(diagonal), inverse_diagonal.data());
  for_panels([&](std::size_t first, std::size_t count) {
    const ConjugateGradientsTask task{.rows = count,
                                      .columns = columns_,
                                      .damping = static_cast<float>(damping),
                                      .mask = mask_.data() + first * mask_bytes(columns_),
                                      .inverse_diagonal = inverse_diagonal.data(),
                                      .product = panel(2),
                                      .direction = panel(0),
                                      .residual = panel(1),
                                      .fitted = values_.data() + first * columns_,
                                      .progress = numbers_.data()};
    copy(targets_ + first * columns_, panel(0), count * columns_);
    check(subtract(panel(0), task.fitted, count * columns_, stream), "fitting weights");
    multiply(panel(0), whole_gram_, count, panel(2));
    check(begin_conjugate_gradients(task, stream), "fitting weights");
    for (int iteration = 0; iteration < iterations; ++iteration) {
      tools_.context.check();
      multiply(panel(0), whole_gram_, count, panel(2));
      check(step_conjugate_gradients(task, stream), "fitting weights");
    }
  });
  finish();
}

// Masks chosen while weights are fitted; what it takes is given back when it ends.
class DeviceRepair::Admm {
 public:
  Admm(DeviceRepair& repair, std::span<const std::int32_t> counts, bool across_rows, std::span<std::uint8_t> mask)
      : repair_(repair),
        stream_(repair.tools_.stream.get()),
        counts_(counts),
        across_rows_(across_rows),
        mask_(mask),
        norms_(repair.tools_.memory, repair.columns_, "a repair by ADMM"),
        goals_(repair.tools_.memory, repair.rows_ * repair.columns_, "a repair by ADMM"),
        device_counts_(repair.tools_.memory, repair.rows_, "a repair by ADMM"),
        sort_rows_(sort_rows(repair.rows_, repair.columns_)) {
    for (DeviceBuffer<std::uint32_t>& buffer : sorting_)
      buffer = DeviceBuffer<std::uint32_t>(repair.tools_.memory, sort_rows_ * repair.columns_, "a repair by ADMM");
  }

  void run() {
    using namespace admm;
    DeviceRepair& r = repair_;
    const std::size_t columns = r.columns_;
    scale_and_invert();
    float* const inverse = r.make_inverse();
    r.begin_phase(2 * as_double(static_cast<std::size_t>(kIterations) + 1) * as_double(r.rows_) * as_double(columns) * as_double(columns));
    r.for_panels([&](std::size_t first, std::size_t count) {
      r.multiply(r.targets_ + first * columns, r.gram_.data(), count, r.panel(0));
      check(start_admm({count, columns, r.targets_ + first * columns, r.panel(0), norms_.data(), static_cast<float>(kDamping), sums(first),
                        goals_.data() + first * columns},
                       stream_),
            "beginning ADMM");
    });
    for (int iteration = 0; iteration < kIterations; ++iteration) {
      if (iteration < kGrowing) drop(share_at(iteration));
      r.for_panels([&](std::size_t first, std::size_t count) {
        const AdmmSums task = sums_task(first, count);
        check(draw_admm(task, goals_.data() + first * columns, static_cast<float>(kPenalty), r.panel(0), stream_), "a step of ADMM");
        r.multiply(r.panel(0), inverse, count, r.panel(1));
        check(move_admm(task, r.panel(1), stream_), "a step of ADMM");
      });
    }
    r.for_panels(
        [&](std::size_t first, std::size_t count) { check(finish_admm(sums_task(first, count), norms_.data(), stream_), "ending ADMM"); });
    r.download(r.mask_.data(), mask_);
    r.finish();
  }

 private:
  float* sums(std::size_t first) { return repair_.values_.data() + first * repair_.columns_; }
  AdmmSums sums_task(std::size_t first, std::size_t count) {
    return {count, repair_.columns_, repair_.mask_.data() + first * mask_bytes(repair_.columns_), sums(first)};
  }

  void scale_and_invert() {
    DeviceRepair& r = repair_;
    const std::size_t columns = r.columns_;
    std::vector<float> norms(columns);
    for (std::size_t column = 0; column < columns; ++column) {
      norms[column] = std::sqrt(std::max(r.input_.gram[column * columns + column], 0.0F)) + admm::kSmallestNorm;
    }
    r.upload(std::span<const float>(norms), norms_.data());
    r.factor_ = DeviceBuffer<double>(r.tools_.memory, factor_values(columns), "the factor of a Gram matrix");
    r.failed_ = DeviceBuffer<unsigned>(r.tools_.memory, 1, "the factor of a Gram matrix");
    r.tools_.timeline.begin("factor", 2 * as_double(columns) * as_double(columns) * as_double(columns), 0);
    const auto added = static_cast<float>(admm::kDamping + admm::kPenalty);
    check(widen_gram({columns, r.gram_.data(), norms_.data(), added, r.factor_.data()}, stream_), "scaling a Gram matrix");
    check(cudaMemsetAsync(r.failed_.data(), 0, sizeof(unsigned), stream_), "clearing a flag");
    check(inverse_factor(r.factor_.data(), columns, r.failed_.data(), stream_), "the factor of a Gram matrix");
    unsigned failed = 0;
    r.download(r.failed_.data(), std::span(&failed, 1));
    r.transpose_found_factor();
    r.finish();
    if (failed != 0) throw Error(ErrorCode::kNonFinite, "The Gram matrix of the inputs has no Cholesky factor.");
  }

  void drop(double share) {
    DeviceRepair& r = repair_;
    if (across_rows_) {
      const double dropped = std::accumulate(counts_.begin(), counts_.end(), 0.0);
      r.mark_lowest_of({r.rows_, r.columns_, sums(0), nullptr}, admm::count_of(dropped, share), r.mask_.data());
      return;
    }
    std::vector<std::int32_t> counts(counts_.size());
    std::ranges::transform(counts_, counts.begin(),
                           [&](std::int32_t count) { return static_cast<std::int32_t>(admm::count_of(count, share)); });
    r.upload(std::span<const std::int32_t>(counts), device_counts_.data());
    for (std::size_t first = 0; first < r.rows_; first += sort_rows_) {
      r.tools_.context.check();
      const std::size_t count = std::min(sort_rows_, r.rows_ - first);
      check(order_rows(
                {count, r.columns_, sums(first), nullptr, sorting_[0].data(), sorting_[1].data(), sorting_[2].data(), sorting_[3].data()},
                stream_),
            "ordering rows");
      check(pack_mask(sorting_[3].data(), device_counts_.data() + first, count, r.columns_, r.mask_.data() + first * mask_bytes(r.columns_),
                      stream_),
            "packing a mask");
    }
  }

  DeviceRepair& repair_;
  cudaStream_t stream_;
  std::span<const std::int32_t> counts_;
  bool across_rows_;
  std::span<std::uint8_t> mask_;
  DeviceBuffer<float> norms_;
  // [rows, columns]: the scaled targets times the scaled Gram matrix, damped.
  DeviceBuffer<float> goals_;
  DeviceBuffer<std::int32_t> device_counts_;
  std::size_t sort_rows_;
  DeviceBuffer<std::uint32_t> sorting_[kSortMatrices];
};

void DeviceRepair::choose_by_admm(std::span<const std::int32_t> counts, bool across_rows, std::span<std::uint8_t> mask) {
  Admm(*this, counts, across_rows, mask).run();
  factor_ = {};
  transposed_ = {};
  failed_ = {};
}

void DeviceRepair::prune_columns(std::span<const std::int32_t> counts, bool across_rows, std::span<std::uint8_t> mask) {
  const cudaStream_t stream = tools_.stream.get();
  begin_phase(as_double(rows_) * as_double(columns_) * as_double(columns_));
  DeviceBuffer<std::int32_t> device_counts(tools_.memory, rows_, "a repair by SparseGPT");
  DeviceBuffer<float> errors(tools_.memory, rows_ * kSparseGptColumns, "a repair by SparseGPT");
  upload(counts, device_counts.data());
  copy(weights_, values_.data(), rows_ * columns_);
  const SparseGptTask task{.rows = rows_,
                           .columns = columns_,
                           .factor = factor_.data(),
                           .dead = dead_.data(),
                           .counts = device_counts.data(),
                           .weights = values_.data(),
                           .errors = errors.data(),
                           .mask = mask_.data()};
  if (!across_rows) {
    check(prune_with_sparsegpt(task, stream), "SparseGPT");
  } else {
    const auto dropped = static_cast<std::size_t>(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
    DeviceBuffer<std::uint8_t> chosen(tools_.memory, rows_ * mask_bytes(kSparseGptColumns), "a repair by SparseGPT");
    for (std::size_t first = 0; first < columns_; first += kSparseGptColumns) {
      tools_.context.check();
      const std::size_t end = std::min(columns_, first + kSparseGptColumns);
      // Errors are made after the scores are read.
      check(score_sparsegpt_block(task, first, errors.data(), stream), "SparseGPT");
      mark_lowest_of({rows_, end - first, errors.data(), nullptr}, end * dropped / columns_ - first * dropped / columns_, chosen.data());
      check(prune_sparsegpt_block(task, first, chosen.data(), stream), "SparseGPT");
    }
  }
  download(mask_.data(), mask);
  finish();
  factor_ = {};
  dead_ = {};
  failed_ = {};
}

void DeviceRepair::mark_lowest_of(const ScoredWeights& scored, std::uint64_t count, std::uint8_t* mask) {
  LowestScoresMemory lowest(tools_.memory, scored.rows);
  check(find_lowest(scored, count, EqualScores::kFirst, lowest.from(), tools_.stream.get()), "the lowest scores");
  check(mark_lowest(scored, lowest.from(), mask, tools_.stream.get()), "marking the lowest scores");
}

template <class Visit>
void DeviceRepair::for_narrowed(ElementType stored, const Visit& visit) {
  const auto narrow_panels = [&](auto* narrowed) {
    for_panels([&](std::size_t first, std::size_t count) {
      const std::size_t begin = first * columns_;
      check(narrow(values_.data() + begin, narrowed, count * columns_, tools_.stream.get()), "rounding weights");
      visit(begin, count * columns_, narrowed);
    });
  };
  if (stored == ElementType::kBF16) {
    narrow_panels(reinterpret_cast<bfloat16*>(panel(0)));
  } else {
    narrow_panels(reinterpret_cast<float16*>(panel(0)));
  }
}

void DeviceRepair::round_values(ElementType stored) {
  const cudaStream_t stream = tools_.stream.get();
  begin_phase(0);
  if (stored != ElementType::kF32) {
    for_narrowed(stored, [&](std::size_t begin, std::size_t size, const auto* narrowed) {
      check(widen(narrowed, values_.data() + begin, size, stream), "rounding weights");
    });
  }
  DeviceBuffer<unsigned> flag(tools_.memory, 1, "a flag");
  check(cudaMemsetAsync(flag.data(), 0, sizeof(unsigned), stream), "clearing a flag");
  check(flag_non_finite(values_.data(), values_.size(), flag.data(), stream), "looking for weights that are too large");
  unsigned too_large = 0;
  download(flag.data(), std::span(&too_large, 1));
  finish();
  if (too_large == 0) return;
  std::vector<float> values(values_.size());
  download(values_.data(), std::span(values));
  finish();
  const auto bad = std::ranges::find_if(values, [](float value) { return !std::isfinite(value); });
  throw Error(ErrorCode::kNonFinite, "The repaired weights of row " +
                                         std::to_string(static_cast<std::size_t>(bad - values.begin()) / columns_) +
                                         " are too large for their type.");
}

std::vector<std::uint8_t> DeviceRepair::read_values(ElementType stored) {
  const std::size_t element_bytes = bytes_of(stored);
  std::vector<std::uint8_t> bytes(values_.size() * element_bytes);
  const auto read = [&](std::size_t begin, std::size_t size, const auto* values) {
    download(reinterpret_cast<const std::uint8_t*>(values), std::span(bytes).subspan(begin * element_bytes, size * element_bytes));
  };
  if (stored == ElementType::kF32) {
    read(0, values_.size(), values_.data());
  } else {
    for_narrowed(stored, read);
  }
  finish();
  return bytes;
}

}  // namespace secateur::gpu
