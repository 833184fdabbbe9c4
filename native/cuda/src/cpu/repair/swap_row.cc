#include "cpu/repair/swap_row.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace secateur::cpu {

namespace {

// A swap counts when an error falls by more than this share of it: less is the rounding of the products that a row begins with.
constexpr double kLeastGain = 1e-6;

struct Lowest {
  std::size_t column;
  double value;
};

// Of the values of the columns.
template <class Value>
Lowest find_lowest(std::size_t columns, Value value) {
  constexpr std::size_t kRun = 128;
  constexpr double kNone = std::numeric_limits<double>::infinity();
  double best = kNone;
  std::size_t first = 0;
  for (std::size_t begin = 0; begin < columns; begin += kRun) {
    const std::size_t end = std::min(columns, begin + kRun);
    double least = kNone;
#pragma omp simd reduction(min : least)
    for (std::size_t column = begin; column < end; ++column) least = std::min(least, value(column));
    if (least < best) {
      best = least;
      first = begin;
    }
  }
  Lowest lowest{first, kNone};
  for (std::size_t column = first; column < std::min(columns, first + kRun); ++column) {
    if (const double own = value(column); own < lowest.value) lowest = {column, own};
  }
  return lowest;
}

double dot(const float* left, const double* right, std::size_t size) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::size_t i = 0; i < size; ++i) sum += static_cast<double>(left[i]) * right[i];
  return sum;
}

struct Swap {
  std::size_t restored;
  std::size_t dropped;
};

// One row. With e = the weights where they are dropped, else 0, the error over samples with the Gram matrix G is eᵀGe. Of the fitting
// samples G is damped.
class Row {
 public:
  Row(const SwapTask& task, std::size_t row, double* scratch)
      : task_(task),
        weights_(task.weights.data() + row * task.columns),
        bits_(task.mask + row * ((task.columns + 7) / 8)),
        fitting_(scratch),
        held_out_(scratch + task.columns),
        slopes_(scratch + 2 * task.columns),
        restoring_(scratch + 3 * task.columns),
        dropping_(scratch + 4 * task.columns) {}

  // lost [columns]: e; the others its products with the Gram matrices.
  std::size_t run(const float* lost, const float* fitting, const float* held_out) {
    for (std::size_t column = 0; column < task_.columns; ++column) {
      fitting_[column] = static_cast<double>(fitting[column]) + task_.damping * static_cast<double>(lost[column]);
      held_out_[column] = static_cast<double>(held_out[column]);
      mark(column, is_dropped(column));
    }
    double error = dot(lost, fitting_, task_.columns);
    const double held_out_error = dot(lost, held_out_, task_.columns);
    // Of the error over the held-out samples: where it is now, and the lowest it was, after `best` of the swaps.
    double change = 0;
    double least = 0;
    std::size_t best = 0;
    while (swaps_.size() < task_.most && error > 0) {
      const Lowest restored =
          find_lowest(task_.columns, [&](std::size_t column) { return restoring_[column] + slopes_[column] * fitting_[column]; });
      if (!std::isfinite(restored.value)) break;
      const auto weight = static_cast<double>(weights_[restored.column]);
      const float* const products = task_.fitting.data() + restored.column * task_.columns;
      const Lowest dropped = find_lowest(task_.columns, [&](std::size_t column) {
        const double after = fitting_[column] - weight * static_cast<double>(products[column]);
        return dropping_[column] + slopes_[column] * after;
      });
      const double gain = -(restored.value + dropped.value);
      if (!(gain > kLeastGain * error)) break;
      change += held_out_change(restored.column, dropped.column);
      apply({restored.column, dropped.column});
      error -= gain;
      if (change < least - kLeastGain * held_out_error) {
        least = change;
        best = swaps_.size();
      }
    }
    for (std::size_t i = 0; i < best; ++i) {
      flip(swaps_[i].restored);
      flip(swaps_[i].dropped);
    }
    return best;
  }

 private:
  static constexpr double kNone = std::numeric_limits<double>::infinity();

  double entry(std::span<const float> gram, std::size_t row, std::size_t column) const {
    return static_cast<double>(gram[row * task_.columns + column]);
  }
  bool is_dropped(std::size_t column) const { return (bits_[column / 8] >> column % 8 & 1U) != 0; }
  void flip(std::size_t column) { bits_[column / 8] ^= static_cast<std::uint8_t>(1U << column % 8); }

  void mark(std::size_t column, bool dropped) {
    const auto weight = static_cast<double>(weights_[column]);
    const double own = weight * weight * (entry(task_.fitting, column, column) + task_.damping);
    slopes_[column] = dropped ? -2 * weight : 2 * weight;
    restoring_[column] = dropped ? own : kNone;
    dropping_[column] = dropped ? kNone : own;
  }

  double held_out_change(std::size_t restored, std::size_t dropped) const {
    const auto back = static_cast<double>(weights_[restored]);
    const auto gone = static_cast<double>(weights_[dropped]);
    return back * (back * entry(task_.held_out, restored, restored) - 2 * held_out_[restored]) +
           gone * (gone * entry(task_.held_out, dropped, dropped) + 2 * held_out_[dropped]) -
           2 * back * gone * entry(task_.held_out, restored, dropped);
  }

  void apply(Swap swap) {
    swaps_.push_back(swap);
    mark(swap.restored, false);
    mark(swap.dropped, true);
    const auto back = static_cast<double>(weights_[swap.restored]);
    const auto gone = static_cast<double>(weights_[swap.dropped]);
    const auto move = [&](std::span<const float> gram, double* products) {
      const float* const restored = gram.data() + swap.restored * task_.columns;
      const float* const dropped = gram.data() + swap.dropped * task_.columns;
      for (std::size_t column = 0; column < task_.columns; ++column) {
        products[column] += gone * static_cast<double>(dropped[column]) - back * static_cast<double>(restored[column]);
      }
    };
    move(task_.fitting, fitting_);
    fitting_[swap.dropped] += task_.damping * gone;
    fitting_[swap.restored] -= task_.damping * back;
    move(task_.held_out, held_out_);
  }

  const SwapTask& task_;
  const float* weights_;
  std::uint8_t* bits_;
  // [columns] each: G·e over the fitting and the held-out samples.
  double* fitting_;
  double* held_out_;
  // What a weight's way to the other side of the mask adds to the error: a part for each unit of its G·e, and the rest, which is infinite
  // for a kept weight that cannot be restored and a dropped one that cannot be dropped.
  double* slopes_;
  double* restoring_;
  double* dropping_;
  std::vector<Swap> swaps_;
};

}  // namespace

std::size_t swap_row(const SwapTask& task, std::size_t row, const float* lost, const float* fitting, const float* held_out,
                     double* scratch) {
  return Row(task, row, scratch).run(lost, fitting, held_out);
}

}  // namespace secateur::cpu
