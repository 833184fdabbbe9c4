// What is left to drop where no hull has a vertex.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "lower_hulls.h"

namespace secateur::allocation {

// Drops `left` more weights together, which is above 0, with the least squared error: every count is a vertex of its row's hull that no
// other count beats at `multiplier` per weight. Between vertices an error may lie far above its hull, so rows may take and give, `longest`
// weights and more: the split is the best of all that move rows by no more than twice that, or by 256, in the order of the rows.
void drop_remainder(const ErrorCurves& errors, std::size_t highest, double multiplier, std::size_t longest, std::size_t left,
                    std::vector<std::size_t>& counts);

std::uint64_t remainder_scratch_bytes(std::size_t highest);

}  // namespace secateur::allocation
