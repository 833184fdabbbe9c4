// The checksum of chunks on the wire.
#pragma once

#include <cstdint>
#include <span>

namespace secateur {

// XXH64 (seed 0).
std::uint64_t checksum(std::span<const std::uint8_t> bytes) noexcept;

// Copies `source` to `target`, which holds as many bytes and does not overlap it, and returns the XXH64 (seed 0) of what was copied. The
// bytes are read once for both.
std::uint64_t copy_with_checksum(std::uint8_t* target, std::span<const std::uint8_t> source) noexcept;

}  // namespace secateur
