// The numbers of ADMM, the same on every device. Found by measurement (docs/quality.md); of inputs and weights scaled so that every input
// column has norm 1.
#pragma once

#include <cmath>
#include <cstddef>

namespace secateur::admm {

inline constexpr int kIterations = 20;
// The first of them, in which sparsity grows.
inline constexpr int kGrowing = 15;
inline constexpr double kPenalty = 1;
inline constexpr double kDamping = 0.1;
inline constexpr float kSmallestNorm = 1e-8F;

// Of what is dropped in the end: fast at first, when the fit can make up for much, then ever more slowly.
inline double share_at(int iteration) { return 1 - std::pow(1 - static_cast<double>(iteration + 1) / kGrowing, 3); }

// Of so many weights that are dropped in the end.
inline std::size_t count_of(double dropped, double share) { return static_cast<std::size_t>(std::floor(dropped * share + 1e-6)); }

}  // namespace secateur::admm
