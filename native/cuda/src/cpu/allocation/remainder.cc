#include "remainder.h"

#include <algorithm>
#include <compare>
#include <limits>
#include <span>
#include <utility>

namespace secateur::allocation {
namespace {

constexpr std::ptrdiff_t kLeastReach = 256;
// Of the table of the best moves: rows that may move, times sums of their moves.
constexpr std::size_t kMostStates = std::size_t{1} << 18U;

// Sums of moves, either way.
constexpr std::size_t sums_of(std::ptrdiff_t reach) { return static_cast<std::size_t>(2 * reach + 1); }

// A row drops so many weights more, or fewer.
struct Move {
  double cost = 0;
  std::size_t row = 0;
  std::ptrdiff_t weights = 0;

  friend auto operator<=>(const Move&, const Move&) = default;
};

class Remainder {
 public:
  Remainder(const ErrorCurves& errors, std::size_t highest, double multiplier, std::ptrdiff_t reach, std::ptrdiff_t left,
            std::vector<std::size_t>& counts)
      : errors_(errors), highest_(highest), multiplier_(multiplier), reach_(reach), left_(left), counts_(counts) {}

  void drop() {
    const Move single = cheapest_single_move();
    if (move_several(cheaper_moves(single.cost), single.cost)) return;
    make(single.row, single.weights);
  }

 private:
  std::size_t sums() const { return sums_of(reach_); }
  void make(std::size_t row, std::ptrdiff_t weights) {
    counts_[row] = static_cast<std::size_t>(static_cast<std::ptrdiff_t>(counts_[row]) + weights);
  }

  // Beyond the multiplier's price of the weights, which is the same for all moves that add up to what is left. error, current: after the
  // move and before it.
  double cost(double error, double current, std::ptrdiff_t weights) const {
    return std::max(0.0, error - current - multiplier_ * static_cast<double>(weights));
  }

  Move cheapest_single_move() const {
    Move cheapest{.cost = std::numeric_limits<double>::infinity()};
    const auto weights = static_cast<std::size_t>(left_);
    for (std::size_t row = 0; row < counts_.size(); ++row) {
      if (counts_[row] + weights > highest_) continue;
      const double error = errors_.at(row, counts_[row] + weights);
      cheapest = std::min(cheapest, Move{.cost = cost(error, errors_.at(row, counts_[row]), left_), .row = row, .weights = left_});
    }
    return cheapest;
  }

  // Moves that could be a part of something cheaper than `limit`; the cheapest, as many as the table has room for. By rows.
  std::vector<Move> cheaper_moves(double limit) const {
    const std::size_t most = std::max<std::size_t>(1, kMostStates / sums());
    std::vector<Move> moves;
    std::vector<double> errors(sums());
    const auto reach = static_cast<std::size_t>(reach_);
    for (std::size_t row = 0; row < counts_.size(); ++row) {
      const std::size_t count = counts_[row];
      const std::size_t first = count - std::min(count, reach);
      const std::size_t known = std::clamp(errors_.first_known(row), first, std::min(count + reach, highest_) + 1);
      const std::span<double> of_row = std::span(errors).first(std::min(count + reach, highest_) + 1 - first);
      std::ranges::fill(of_row.first(known - first), 0.0);
      errors_.load(row, known, of_row.subspan(known - first));
      const double current = of_row[count - first];
      for (std::size_t i = 0; i < of_row.size(); ++i) {
        const std::ptrdiff_t weights = static_cast<std::ptrdiff_t>(first + i) - static_cast<std::ptrdiff_t>(count);
        const Move move{.cost = cost(of_row[i], current, weights), .row = row, .weights = weights};
        if (!(move.cost < limit) || weights == 0) continue;
        if (moves.size() == most) {
          if (!(move < moves.front())) continue;
          std::ranges::pop_heap(moves);
          moves.pop_back();
        }
        moves.push_back(move);
        std::ranges::push_heap(moves);
      }
    }
    std::ranges::sort(moves, {}, [](const Move& move) { return std::pair(move.row, move.weights); });
    return moves;
  }

  // Makes the cheapest of all sets of moves, of each row at most one, that add up to what is left; false when none is cheaper than `limit`.
  bool move_several(const std::vector<Move>& moves, double limit) {
    const auto place = [&](std::ptrdiff_t sum) { return static_cast<std::size_t>(sum + reach_); };
    std::vector<double> costs(sums(), std::numeric_limits<double>::infinity());
    costs[place(0)] = 0;
    std::vector<double> next;
    // Per row that may move: its own moves end there, and by how much it moves on the cheapest way to each sum.
    std::vector<std::size_t> ends;
    std::vector<std::int32_t> taken;
    for (std::size_t first = 0; first < moves.size();) {
      const std::size_t row = moves[first].row;
      const std::size_t begin = taken.size();
      taken.resize(begin + sums());
      next = costs;
      std::size_t end = first;
      for (; end < moves.size() && moves[end].row == row; ++end) {
        const std::ptrdiff_t weights = moves[end].weights;
        for (std::ptrdiff_t sum = std::max(-reach_, -reach_ - weights); sum <= std::min(reach_, reach_ - weights); ++sum) {
          const double moved = costs[place(sum)] + moves[end].cost;
          if (!(moved < next[place(sum + weights)])) continue;
          next[place(sum + weights)] = moved;
          taken[begin + place(sum + weights)] = static_cast<std::int32_t>(weights);
        }
      }
      std::swap(costs, next);
      ends.push_back(end);
      first = end;
    }
    if (!(costs[place(left_)] < limit)) return false;
    std::ptrdiff_t sum = left_;
    for (std::size_t i = ends.size(); i-- > 0;) {
      const std::ptrdiff_t weights = taken[i * sums() + place(sum)];
      make(moves[ends[i] - 1].row, weights);
      sum -= weights;
    }
    return true;
  }

  const ErrorCurves& errors_;
  std::size_t highest_;
  double multiplier_;
  // The most that a row, or all rows so far together, may move either way.
  std::ptrdiff_t reach_;
  std::ptrdiff_t left_;
  std::vector<std::size_t>& counts_;
};

}  // namespace

void drop_remainder(const ErrorCurves& errors, std::size_t highest, double multiplier, std::size_t longest, std::size_t left,
                    std::vector<std::size_t>& counts) {
  const std::ptrdiff_t reach = std::max(kLeastReach, 2 * static_cast<std::ptrdiff_t>(longest));
  Remainder(errors, highest, multiplier, reach, static_cast<std::ptrdiff_t>(left), counts).drop();
}

std::uint64_t remainder_scratch_bytes(std::size_t highest) {
  const std::size_t sums = sums_of(std::max(kLeastReach, 2 * static_cast<std::ptrdiff_t>(highest)));
  return std::max(kMostStates, sums) * sizeof(std::int32_t) + 2 * sums * sizeof(double) + kMostStates / sums_of(kLeastReach) * sizeof(Move);
}

}  // namespace secateur::allocation
