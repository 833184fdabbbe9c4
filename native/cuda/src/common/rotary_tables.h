// Angles by which queries and keys are rotated: the same for every backend.
#pragma once

#include <cstddef>

#include "secateur/backend.h"

namespace secateur {

// Fills [positions, head_dimension / 2] each.
void fill_rotary_tables(const Architecture& architecture, std::size_t positions, float* cosines, float* sines);

}  // namespace secateur
