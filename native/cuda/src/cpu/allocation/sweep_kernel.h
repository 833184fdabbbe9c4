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
constexpr std::size_t kPrefetchDistance = 2;
constexpr std::size_t kLineFloats = 64 / sizeof(float);

// A sum of many columns is made of sums of so many, which keeps its rounding small.
constexpr std::size_t kSummedTogether = 32;

template <class Real>
constexpr std::size_t kLanes = kVectorBytes / sizeof(Real);

using Doubles = double __attribute__((vector_size(kVectorBytes), may_alias));
using Floats = float __attribute__((vector_size(kVectorBytes), may_alias));
using Pair = double __attribute__((vector_size(2 * sizeof(double)), may_alias));

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
// sums: the sum of the lanes of either vector.
#if SECATEUR_SWEEP_VECTOR_BYTES == 64
// The masked forms, for g++ 12 warns of an uninitialised operand inside the plain ones.
inline Doubles widen(const float* values) { return _mm512_maskz_cvtps_pd(0xff, _mm256_load_ps(values)); }
inline Doubles fold(Floats vector) {
  using Half = float __attribute__((vector_size(32)));
  const Half low = __builtin_shufflevector(vector, vector, 0, 1, 2, 3, 4, 5, 6, 7);
  const Half high = __builtin_shufflevector(vector, vector, 8, 9, 10, 11, 12, 13, 14, 15);
  return _mm512_maskz_cvtps_pd(0xff, low) + _mm512_maskz_cvtps_pd(0xff, high);
}
inline Pair sums(Doubles first, Doubles second) {
  const Doubles pairs =
      __builtin_shufflevector(first, second, 0, 8, 2, 10, 4, 12, 6, 14) + __builtin_shufflevector(first, second, 1, 9, 3, 11, 5, 13, 7, 15);
  using Half = double __attribute__((vector_size(32)));
  const Half half = __builtin_shufflevector(pairs, pairs, 0, 1, 2, 3) + __builtin_shufflevector(pairs, pairs, 4, 5, 6, 7);
  return __builtin_shufflevector(half, half, 0, 1) + __builtin_shufflevector(half, half, 2, 3);
}
#elif SECATEUR_SWEEP_VECTOR_BYTES == 32
inline Doubles widen(const float* values) { return _mm256_cvtps_pd(_mm_load_ps(values)); }
inline Doubles fold(Floats vector) {
  return _mm256_cvtps_pd(_mm256_castps256_ps128(vector)) + _mm256_cvtps_pd(_mm256_extractf128_ps(vector, 1));
}
inline Pair sums(Doubles first, Doubles second) {
  const Doubles pairs = __builtin_shufflevector(first, second, 0, 4, 2, 6) + __builtin_shufflevector(first, second, 1, 5, 3, 7);
  return __builtin_shufflevector(pairs, pairs, 0, 1) + __builtin_shufflevector(pairs, pairs, 2, 3);
}
#else
inline Doubles widen(const float* values) { return Doubles{static_cast<double>(values[0]), static_cast<double>(values[1])}; }
inline Doubles fold(Floats vector) {
  return Doubles{static_cast<double>(vector[0]) + static_cast<double>(vector[2]),
                 static_cast<double>(vector[1]) + static_cast<double>(vector[3])};
}
inline Pair sums(Doubles first, Doubles second) {
  return __builtin_shufflevector(first, second, 0, 2) + __builtin_shufflevector(first, second, 1, 3);
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

// inputs: [columns, Vectors * kLanes<Real>] of the panel that begins with first_sample.
template <class Real, std::size_t Vectors, bool Aligns>
void sweep_panel(const SweepTask& task, const float* inputs, std::size_t first_sample) {
  using Vector = typename VectorOf<Real>::Type;
  constexpr std::size_t kWidth = Vectors * kLanes<Real>;
  Pair* const alignments = reinterpret_cast<Pair*>(task.alignments);
  Vector dense[Vectors];
  if constexpr (Aligns) {
    for (std::size_t v = 0; v < Vectors; ++v) dense[v] = load<Real>(task.dense + first_sample + v * kLanes<Real>);
  }
  Vector* const kept_sum = static_cast<Vector*>(task.sum) + first_sample / kLanes<Real>;
  Vector sum[Vectors];
  for (std::size_t v = 0; v < Vectors; ++v) sum[v] = Aligns ? kept_sum[v] : Vector{};
  for (std::size_t j = 0; j < task.count; ++j) {
    const float* const input = inputs + task.columns[j] * kWidth;
    const Real weight = static_cast<Real>(task.weights[j]);
    const float* const ahead = inputs + task.columns[j + kPrefetchDistance < task.count ? j + kPrefetchDistance : j] * kWidth;
    // Two chains of additions each, to hide their latency.
    Vector with_sum[2] = {};
    Vector with_dense[2] = {};
#pragma GCC unroll 32
    for (std::size_t v = 0; v < Vectors; ++v) {
      const Vector x = load<Real>(input + v * kLanes<Real>);
      if (v * kLanes<Real> % kLineFloats == 0) __builtin_prefetch(ahead + v * kLanes<Real>);
      if constexpr (Aligns) {
        with_sum[v % 2] += sum[v] * x;
        with_dense[v % 2] += dense[v] * x;
      }
      sum[v] += weight * x;
    }
    if constexpr (Aligns) {
      alignments[j] += sums(fold(with_sum[0] + with_sum[1]), fold(with_dense[0] + with_dense[1]));
    } else if (j % kSummedTogether == kSummedTogether - 1 || j + 1 == task.count) {
      for (std::size_t v = 0; v < Vectors; ++v) {
        kept_sum[v] += sum[v];
        sum[v] = Vector{};
      }
    }
  }
  if constexpr (Aligns) {
    for (std::size_t v = 0; v < Vectors; ++v) kept_sum[v] = sum[v];
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
  for (std::size_t v = 0; v < Vectors; ++v) kept_sum[v] = sum[v];
}

template <class Real, std::size_t Vectors>
void sweep_tasks(const SweepTask* tasks, std::size_t count, const float* inputs, std::size_t first_sample) {
  for (std::size_t i = 0; i < count; ++i) {
    const SweepTask& task = tasks[i];
    if constexpr (sizeof(Real) == sizeof(double)) {
      if (task.rounder != 0) {
        sweep_rounded<Vectors>(task, inputs, first_sample);
        continue;
      }
    }
    if (task.alignments == nullptr) {
      sweep_panel<Real, Vectors, false>(task, inputs, first_sample);
    } else {
      sweep_panel<Real, Vectors, true>(task, inputs, first_sample);
    }
  }
}

// Calls the instance for `vectors`, which is at most kPanelVectors.
template <class Real, std::size_t Vectors = kPanelVectors>
void sweep_vectors(const SweepTask* tasks, std::size_t count, const float* inputs, std::size_t first_sample, std::size_t vectors) {
  if constexpr (Vectors > 0) {
    if (vectors == Vectors) {
      sweep_tasks<Real, Vectors>(tasks, count, inputs, first_sample);
    } else {
      sweep_vectors<Real, Vectors - 1>(tasks, count, inputs, first_sample, vectors);
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
    sweep_vectors<Real>(tasks, count, panels.inputs + first * panels.columns, first, left < kPanelVectors ? left : kPanelVectors);
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
