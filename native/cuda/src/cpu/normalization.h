// The architecture's normalisation of hidden states.
#pragma once

#include <cstddef>

#include "secateur/backend.h"

namespace secateur::cpu {

// Of `tokens` rows; the result may take the place of x. bias: or null.
void normalize(const Architecture& architecture, const float* x, const float* weight, const float* bias, std::size_t tokens, float* result);

}  // namespace secateur::cpu
