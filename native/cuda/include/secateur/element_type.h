// Types of stored values.
#pragma once

#include <cstddef>

namespace secateur {

enum class ElementType { kF32, kF16, kBF16 };

inline std::size_t bytes_of(ElementType type) { return type == ElementType::kF32 ? 4 : 2; }

}  // namespace secateur
