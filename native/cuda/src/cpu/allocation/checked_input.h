// What every backend checks and prepares before it allocates rows.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "secateur/allocation.h"

namespace secateur::allocation {

// Throws InvalidArgument naming a size that is not the expected one.
void require_size(std::size_t size, std::size_t expected, const char* name);

// Throws InvalidArgument naming what is wrong. Weights are not looked at: they may be on a device.
void require_valid(const AllocationInput& input, const AllocationOptions& options);

// A target of 0 or less counts as 0.01.
float target_of(const AllocationInput& input);

// [columns]: square roots of the mean squares, or nothing when the score does not use them. Throws NonFinite or InvalidArgument naming the
// column.
std::vector<float> score_scales(const AllocationInput& input, Score score);

// Of Wanda's scores alone, where nothing is allocated. Throws as score_scales, and InvalidArgument when there are not as many as columns.
std::vector<float> wanda_scales(std::span<const float> mean_squares, std::size_t columns);

}  // namespace secateur::allocation
