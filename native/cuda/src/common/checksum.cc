#include "common/checksum.h"

#include <array>
#include <bit>
#include <cstddef>
#include <cstring>

namespace secateur {

namespace {

static_assert(std::endian::native == std::endian::little, "XXH64 reads little-endian words.");

// Names and steps as in the specification of XXH64.
constexpr std::uint64_t kPrime1 = 0x9E3779B185EBCA87;
constexpr std::uint64_t kPrime2 = 0xC2B2AE3D27D4EB4F;
constexpr std::uint64_t kPrime3 = 0x165667B19E3779F9;
constexpr std::uint64_t kPrime4 = 0x85EBCA77C2B2AE63;
constexpr std::uint64_t kPrime5 = 0x27D4EB2F165667C5;

constexpr std::size_t kStripeBytes = 32;

template <class Word>
Word copy_word(std::uint8_t* target, const std::uint8_t* source) noexcept {
  Word word;
  std::memcpy(&word, source, sizeof word);
  std::memcpy(target, &word, sizeof word);
  return word;
}

std::uint64_t round(std::uint64_t accumulator, std::uint64_t lane) noexcept {
  return std::rotl(accumulator + lane * kPrime2, 31) * kPrime1;
}

}  // namespace

std::uint64_t copy_with_checksum(std::uint8_t* target, std::span<const std::uint8_t> source) noexcept {
  const std::uint8_t* from = source.data();
  std::size_t left = source.size();
  std::uint64_t hash = kPrime5;
  if (left >= kStripeBytes) {
    std::array<std::uint64_t, 4> lanes = {kPrime1 + kPrime2, kPrime2, 0, 0 - kPrime1};
    for (; left >= kStripeBytes; left -= kStripeBytes, from += kStripeBytes, target += kStripeBytes) {
      for (std::size_t i = 0; i < lanes.size(); ++i) lanes[i] = round(lanes[i], copy_word<std::uint64_t>(target + 8 * i, from + 8 * i));
    }
    hash = std::rotl(lanes[0], 1) + std::rotl(lanes[1], 7) + std::rotl(lanes[2], 12) + std::rotl(lanes[3], 18);
    for (const std::uint64_t lane : lanes) hash = (hash ^ round(0, lane)) * kPrime1 + kPrime4;
  }
  hash += source.size();
  for (; left >= 8; left -= 8, from += 8, target += 8) {
    hash = std::rotl(hash ^ round(0, copy_word<std::uint64_t>(target, from)), 27) * kPrime1 + kPrime4;
  }
  if (left >= 4) {
    hash = std::rotl(hash ^ copy_word<std::uint32_t>(target, from) * kPrime1, 23) * kPrime2 + kPrime3;
    left -= 4, from += 4, target += 4;
  }
  for (; left > 0; --left, ++from, ++target) hash = std::rotl(hash ^ copy_word<std::uint8_t>(target, from) * kPrime5, 11) * kPrime1;
  hash = (hash ^ hash >> 33) * kPrime2;
  hash = (hash ^ hash >> 29) * kPrime3;
  return hash ^ hash >> 32;
}

}  // namespace secateur
