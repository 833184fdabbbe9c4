// What every backend checks and prepares before it allocates rows.
#pragma once

#include <vector>

#include "secateur/allocation.h"

namespace secateur::allocation {

// Throws InvalidArgument naming what is wrong.
void require_valid(const AllocationInput& input, const AllocationOptions& options);

// A target of 0 or less counts as 0.01.
float target_of(const AllocationInput& input);

// [columns]: square roots of the mean squares, or nothing when the score does not use them. Throws NonFinite or InvalidArgument naming the
// column.
std::vector<float> score_scales(const AllocationInput& input, Score score);

}  // namespace secateur::allocation
