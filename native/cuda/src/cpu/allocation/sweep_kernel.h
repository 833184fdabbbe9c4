// The sweep for one vector width. Included once per instruction set, each time compiled with that set's flags and inside its own namespace,
// so that no function compiled for a newer processor can be linked in place of an older one's.
//
// Alignments add up over the panels.
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "sweep.h"

namespace secateur::allocation::SECATEUR_SWEEP_NAMESPACE {
namespace {

constexpr std::size_t kVectorBytes = SECATEUR_SWEEP_VECTOR_BYTES;
constexpr std::size_t kPanelVectors = SECATEUR_SWEEP_PANEL_VECTORS;

// Columns are visited in no order that the processor could guess.
constexpr std::size_t kPrefetchDistance = kVectorBytes == 64 ? 3 : 2;
constexpr std::size_t kLineFloats = 64 / sizeof(float);

// Of a panel, so many columns stay in the first cache while all rows of a batch add up theirs. A sum of many columns is made of the sums of
// these, which keeps its rounding small.
constexpr std::size_t kBlockColumns = SECATEUR_SWEEP_BLOCK_COLUMNS;
// Rows that share the block.
constexpr std::size_t kAddedTogether = 32;

template <class Real>
constexpr std::size_t kLanes = kVectorBytes / sizeof(Real);

using Doubles = double __attribute__((vector_size(kVectorBytes), may_alias));
using Floats = float __attribute__((vector_size(kVectorBytes), may_alias));
using Pair = double __attribute__((vector_size(2 * sizeof(double)), may_alias));
#if SECATEUR_SWEEP_VECTOR_BYTES > 16
using TwoPairs = double __attribute__((vector_size(4 * sizeof(double)), aligned(2 * sizeof(double)), may_alias));
#endif

template <class Real>
struct VectorOf;
template <>
struct VectorOf<double> {
  using Type = Doubles;
};
template <>
struct VectorOf<float> {
  using Type = Floats;
};

// widen: float32 values as float64, as many as fit one vector. fold: the lanes of a float32 vector added up in float64, in pairs.
// sums: the sum of the lanes of either vector. add_sums: the same of two vectors each, added to two alignments.
#if SECATEUR_SWEEP_VECTOR_BYTES == 64
// The masked forms, for g++ 12 warns of an uninitialised operand inside the plain ones.
inline Doubles widen(const float* values) { return _mm512_maskz_cvtps_pd(0xff, _mm256_load_ps(values)); }
inline Doubles fold(Floats vector) {
  using Half = float __attribute__((vector_size(32)));
  const Half low = __builtin_shufflevector(vector, vector, 0, 1, 2, 3, 4, 5, 6, 7);
  const Half high = __builtin_shufflevector(vector, vector, 8, 9, 10, 11, 12, 13, 14, 15);
  return _mm512_maskz_cvtps_pd(0xff, low) + _mm512_maskz_cvtps_pd(0xff, high);
}
inline TwoPairs pairs_of(Doubles first, Doubles second) {
  const Doubles pairs =
      __builtin_shufflevector(first, second, 0, 8, 2, 10, 4, 12, 6, 14) + __builtin_shufflevector(first, second, 1, 9, 3, 11, 5, 13, 7, 15);
  return __builtin_shufflevector(pairs, pairs, 0, 1, 2, 3) + __builtin_shufflevector(pairs, pairs, 4, 5, 6, 7);
}
#elif SECATEUR_SWEEP_VECTOR_BYTES == 32
inline Doubles widen(const float* values) { return _mm256_cvtps_pd(_mm_load_ps(values)); }
inline Doubles fold(Floats vector) {
  return _mm256_cvtps_pd(_mm256_castps256_ps128(vector)) + _mm256_cvtps_pd(_mm256_extractf128_ps(vector, 1));
}
inline TwoPairs pairs_of(Doubles first, Doubles second) {
  return __builtin_shufflevector(first, second, 0, 4, 2, 6) + __builtin_shufflevector(first, second, 1, 5, 3, 7);
}
#else
inline Doubles widen(const float* values) { return Doubles{static_cast<double>(values[0]), static_cast<double>(values[1])}; }
inline Doubles fold(Floats vector) {
  return Doubles{static_cast<double>(vector[0]) + static_cast<double>(vector[2]),
                 static_cast<double>(vector[1]) + static_cast<double>(vector[3])};
}
#endif
#if SECATEUR_SWEEP_VECTOR_BYTES == 16
inline Pair sums(Doubles first, Doubles second) {
  return __builtin_shufflevector(first, second, 0, 2) + __builtin_shufflevector(first, second, 1, 3);
}
inline void add_sums(Doubles first, Doubles second, Doubles third, Doubles fourth, Alignment* to) {
  *reinterpret_cast<Pair*>(to) += sums(first, second);
  *reinterpret_cast<Pair*>(to + 1) += sums(third, fourth);
}
#else
inline Pair sums(Doubles first, Doubles second) {
  const TwoPairs pairs = pairs_of(first, second);
  return __builtin_shufflevector(pairs, pairs, 0, 1) + __builtin_shufflevector(pairs, pairs, 2, 3);
}
inline void add_sums(Doubles first, Doubles second, Doubles third, Doubles fourth, Alignment* to) {
  const TwoPairs one = pairs_of(first, second);
  const TwoPairs other = pairs_of(third, fourth);
  *reinterpret_cast<TwoPairs*>(to) += __builtin_shufflevector(one, other, 0, 1, 4, 5) + __builtin_shufflevector(one, other, 2, 3, 6, 7);
}
#endif

template <class Real>
inline typename VectorOf<Real>::Type load(const float* values) {
  if constexpr (sizeof(Real) == sizeof(float)) {
    return *reinterpret_cast<const Floats*>(values);
  } else {
    return widen(values);
  }
}

inline Doubles fold(Doubles vector) { return vector; }

// A value that is used several times. Else the compiler reads it anew for each use, and with wide vectors reading is what takes longest.
template <class Vector>
inline void keep_in_register([[maybe_unused]] Vector& vector) {
#if SECATEUR_SWEEP_VECTOR_BYTES == 64
  asm("" : "+v"(vector));
#endif
}

// inputs: [columns, Vectors * kLanes<Real>] of the panel that begins with first_sample.
template <class Real, std::size_t Vectors>
void sweep_panel(const SweepTask& task, const float* inputs, std::size_t first_sample) {
  using Vector = typename VectorOf<Real>::Type;
  constexpr std::size_t kWidth = Vectors * kLanes<Real>;
  Vector* const kept_sum = static_cast<Vector*>(task.sum) + first_sample / kLanes<Real>;
  Vector dense[Vectors];
  Vector sum[Vectors];
#pragma GCC unroll 32
  for (std::size_t v = 0; v < Vectors; ++v) {
    dense[v] = load<Real>(task.dense + first_sample + v * kLanes<Real>);
    sum[v] = kept_sum[v];
  }
  struct Products {
    Doubles with_sum;
    Doubles with_dense;
  };
  const auto step = [&](std::size_t j) __attribute__((always_inline)) {
    const float* const input = inputs + task.columns[j] * kWidth;
    const Real weight = static_cast<Real>(task.weights[j]);
    const float* const ahead = inputs + task.columns[j + kPrefetchDistance < task.count ? j + kPrefetchDistance : j] * kWidth;
    // Two chains of additions each, to hide their latency.
    Vector with_sum[2] = {};
    Vector with_dense[2] = {};
#pragma GCC unroll 32
    for (std::size_t v = 0; v < Vectors; ++v) {
      Vector x = load<Real>(input + v * kLanes<Real>);
      keep_in_register(x);
      if (v * kLanes<Real> % kLineFloats == 0) __builtin_prefetch(ahead + v * kLanes<Real>);
      with_sum[v % 2] += sum[v] * x;
      with_dense[v % 2] += dense[v] * x;
      sum[v] += weight * x;
    }
    return Products{fold(with_sum[0] + with_sum[1]), fold(with_dense[0] + with_dense[1])};
  };
  Alignment* const alignments = task.alignments;
  std::size_t j = 0;
  for (; j + 2 <= task.count; j += 2) {
    const Products one = step(j);
    const Products other = step(j + 1);
    add_sums(one.with_sum, one.with_dense, other.with_sum, other.with_dense, alignments + j);
  }
  if (j < task.count) {
    const Products last = step(j);
    *reinterpret_cast<Pair*>(alignments + j) += sums(last.with_sum, last.with_dense);
  }
#pragma GCC unroll 32
  for (std::size_t v = 0; v < Vectors; ++v) kept_sum[v] = sum[v];
}

// Adds to the task's sum its columns from `next` on that are below `end`; returns the first that is not.
template <class Real, std::size_t Vectors>
std::size_t add_up_block(const SweepTask& task, const float* inputs, std::size_t first_sample, std::size_t next, std::size_t end) {
  using Vector = typename VectorOf<Real>::Type;
  constexpr std::size_t kWidth = Vectors * kLanes<Real>;
  if (next == task.count || task.columns[next] >= end) return next;
  Vector sum[Vectors] = {};
  do {
    const float* const input = inputs + task.columns[next] * kWidth;
    const Real weight = static_cast<Real>(task.weights[next]);
#pragma GCC unroll 32
    for (std::size_t v = 0; v < Vectors; ++v) sum[v] += weight * load<Real>(input + v * kLanes<Real>);
  } while (++next < task.count && task.columns[next] < end);
  Vector* const kept_sum = static_cast<Vector*>(task.sum) + first_sample / kLanes<Real>;
#pragma GCC unroll 32
  for (std::size_t v = 0; v < Vectors; ++v) kept_sum[v] += sum[v];
  return next;
}

// The tasks' sums alone, block by block of the columns, which ascend but for a few at the end of each task.
template <class Real, std::size_t Vectors>
void add_up(const SweepTask* tasks, std::size_t count, const float* inputs, std::size_t columns, std::size_t first_sample) {
  std::size_t next[kAddedTogether] = {};
  for (std::size_t first = 0; first < columns; first += kBlockColumns) {
    for (std::size_t i = 0; i < count; ++i) {
      next[i] = add_up_block<Real, Vectors>(tasks[i], inputs, first_sample, next[i], first + kBlockColumns);
    }
  }
}

// As above, with products that are rounded before they are added.
template <std::size_t Vectors>
void sweep_rounded(const SweepTask& task, const float* inputs, std::size_t first_sample) {
  constexpr std::size_t kWidth = Vectors * kLanes<double>;
  Doubles* const kept_sum = static_cast<Doubles*>(task.sum) + first_sample / kLanes<double>;
  Doubles sum[Vectors];
  for (std::size_t v = 0; v < Vectors; ++v) sum[v] = kept_sum[v];
  for (std::size_t j = 0; j < task.count; ++j) {
    const float* const input = inputs + task.columns[j] * kWidth;
    const double weight = static_cast<double>(task.weights[j]);
    const float* const ahead = inputs + task.columns[j + kPrefetchDistance < task.count ? j + kPrefetchDistance : j] * kWidth;
#pragma GCC unroll 32
    for (std::size_t v = 0; v < Vectors; ++v) {
      if (v * kLanes<double> % kLineFloats == 0) __builtin_prefetch(ahead + v * kLanes<double>);
      // The product of two float32 values is exact, so that it makes no difference whether it is fused with the addition.
      sum[v] += (weight * load<double>(input + v * kLanes<double>) + task.rounder) - task.rounder;
    }
  }
#pragma GCC unroll 32
  for (std::size_t v = 0; v < Vectors; ++v) kept_sum[v] = sum[v];
}

inline bool only_adds_up(const SweepTask& task) { return task.alignments == nullptr && task.rounder == 0; }

template <class Real, std::size_t Vectors>
void sweep_tasks(const SweepTask* tasks, std::size_t count, const float* inputs, std::size_t columns, std::size_t first_sample) {
  for (std::size_t i = 0; i < count;) {
    const SweepTask& task = tasks[i];
    if (only_adds_up(task)) {
      std::size_t together = 1;
      while (together < kAddedTogether && i + together < count && only_adds_up(tasks[i + together])) ++together;
      add_up<Real, Vectors>(tasks + i, together, inputs, columns, first_sample);
      i += together;
      continue;
    }
    if constexpr (sizeof(Real) == sizeof(double)) {
      if (task.rounder != 0) sweep_rounded<Vectors>(task, inputs, first_sample);
    }
    if (task.alignments != nullptr) sweep_panel<Real, Vectors>(task, inputs, first_sample);
    ++i;
  }
}

// Calls the instance for `vectors`, which is at most kPanelVectors.
template <class Real, std::size_t Vectors = kPanelVectors>
void sweep_vectors(const SweepTask* tasks, std::size_t count, const float* inputs, std::size_t columns, std::size_t first_sample,
                   std::size_t vectors) {
  if constexpr (Vectors > 0) {
    if (vectors == Vectors) {
      sweep_tasks<Real, Vectors>(tasks, count, inputs, columns, first_sample);
    } else {
      sweep_vectors<Real, Vectors - 1>(tasks, count, inputs, columns, first_sample, vectors);
    }
  }
}

template <class Real>
constexpr std::size_t kPanelSamples = kPanelVectors* kLanes<Real>;

template <class Real>
void sweep_in(const SweepPanels& panels, const SweepTask* tasks, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const SweepTask& task = tasks[i];
    if (task.alignments == nullptr) continue;
    for (std::size_t j = 0; j < task.count; ++j) task.alignments[j] = {};
  }
  for (std::size_t first = 0; first < panels.stride; first += kPanelSamples<Real>) {
    const std::size_t left = (panels.stride - first) / kLanes<Real>;
    sweep_vectors<Real>(tasks, count, panels.inputs + first * panels.columns, panels.columns, first,
                        left < kPanelVectors ? left : kPanelVectors);
  }
}

void sweep(const SweepPanels& panels, const SweepTask* tasks, std::size_t count) {
  if (panels.precision == SweepPrecision::kFloat32) {
    sweep_in<float>(panels, tasks, count);
  } else {
    sweep_in<double>(panels, tasks, count);
  }
}

std::size_t panel_samples(SweepPrecision precision) {
  return precision == SweepPrecision::kFloat32 ? kPanelSamples<float> : kPanelSamples<double>;
}

inline Doubles load_sum(const double* values) { return *reinterpret_cast<const Doubles*>(values); }
inline Doubles load_sum(const float* values) { return widen(values); }

template <class Real>
SumProducts products_in(const Real* sum, const float* dense, std::size_t stride) {
  Doubles with_dense = {};
  Doubles squares = {};
  Doubles dense_squares = {};
  for (std::size_t sample = 0; sample < stride; sample += kLanes<double>) {
    const Doubles p = load_sum(sum + sample);
    const Doubles y = widen(dense + sample);
    with_dense += p * y;
    squares += p * p;
    dense_squares += y * y;
  }
  const Pair of_sum = sums(with_dense, squares);
  return {.with_dense = of_sum[0], .squared_norm = of_sum[1], .dense_squared_norm = sums(dense_squares, dense_squares)[0]};
}

SumProducts products(SweepPrecision precision, const void* sum, const float* dense, std::size_t stride) {
  return precision == SweepPrecision::kFloat32 ? products_in(static_cast<const float*>(sum), dense, stride)
                                               : products_in(static_cast<const double*>(sum), dense, stride);
}

}  // namespace

extern const SweepFunctions kSweepFunctions;
const SweepFunctions kSweepFunctions = {.sweep = sweep, .products = products, .panel_samples = panel_samples};

}  // namespace secateur::allocation::SECATEUR_SWEEP_NAMESPACE
