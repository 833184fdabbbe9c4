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

// Memory, word after word.
class Words {
 public:
  explicit Words(const std::uint8_t* next) noexcept : next_(next) {}

  template <class Word>
  Word take() noexcept {
    Word word;
    std::memcpy(&word, next_, sizeof word);
    next_ += sizeof word;
    return word;
  }

 private:
  const std::uint8_t* next_;
};

// The same, and every word that is taken is written elsewhere.
class CopiedWords {
 public:
  CopiedWords(const std::uint8_t* next, std::uint8_t* target) noexcept : words_(next), target_(target) {}

  template <class Word>
  Word take() noexcept {
    const Word word = words_.take<Word>();
    std::memcpy(target_, &word, sizeof word);
    target_ += sizeof word;
    return word;
  }

 private:
  Words words_;
  std::uint8_t* target_;
};

std::uint64_t round(std::uint64_t accumulator, std::uint64_t lane) noexcept {
  return std::rotl(accumulator + lane * kPrime2, 31) * kPrime1;
}

template <class Source>
std::uint64_t sum_up(Source words, const std::size_t bytes) noexcept {
  std::size_t left = bytes;
  std::uint64_t hash = kPrime5;
  if (left >= kStripeBytes) {
    std::array<std::uint64_t, 4> lanes = {kPrime1 + kPrime2, kPrime2, 0, 0 - kPrime1};
    for (; left >= kStripeBytes; left -= kStripeBytes) {
      for (std::uint64_t& lane : lanes) lane = round(lane, words.template take<std::uint64_t>());
    }
    hash = std::rotl(lanes[0], 1) + std::rotl(lanes[1], 7) + std::rotl(lanes[2], 12) + std::rotl(lanes[3], 18);
    for (const std::uint64_t lane : lanes) hash = (hash ^ round(0, lane)) * kPrime1 + kPrime4;
  }
  hash += bytes;
  for (; left >= 8; left -= 8) hash = std::rotl(hash ^ round(0, words.template take<std::uint64_t>()), 27) * kPrime1 + kPrime4;
  if (left >= 4) {
    hash = std::rotl(hash ^ words.template take<std::uint32_t>() * kPrime1, 23) * kPrime2 + kPrime3;
    left -= 4;
  }
  for (; left > 0; --left) hash = std::rotl(hash ^ words.template take<std::uint8_t>() * kPrime5, 11) * kPrime1;
  hash = (hash ^ hash >> 33) * kPrime2;
  hash = (hash ^ hash >> 29) * kPrime3;
  return hash ^ hash >> 32;
}

}  // namespace

std::uint64_t checksum(std::span<const std::uint8_t> bytes) noexcept { return sum_up(Words(bytes.data()), bytes.size()); }

std::uint64_t copy_with_checksum(std::uint8_t* target, std::span<const std::uint8_t> source) noexcept {
  return sum_up(CopiedWords(source.data(), target), source.size());
}

}  // namespace secateur
