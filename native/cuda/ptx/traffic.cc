#include "traffic.h"

#include <algorithm>
#include <array>
#include <set>

namespace secateur::ptx {
namespace {

constexpr std::size_t kWarpLanes = 32;
constexpr std::size_t kBanks = 32;
constexpr std::size_t kBankBytes = 4;

std::size_t sectors(std::span<const Access> accesses) {
  std::set<std::uint64_t> touched;
  for (const Access& access : accesses) {
    const std::uint64_t last = (access.address + access.bytes - 1) / Traffic::kSectorBytes;
    for (std::uint64_t sector = access.address / Traffic::kSectorBytes; sector <= last; ++sector) touched.insert(sector);
  }
  return touched.size();
}

// Turns beyond the first. The banks serve 128 bytes at a time: wider accesses go by halves or quarters of the warp.
std::size_t conflicts(std::span<const Access> accesses) {
  const std::size_t lanes = kBanks * kBankBytes / std::max<std::size_t>(accesses.front().bytes, kBankBytes);
  std::size_t extra = 0;
  for (std::size_t first = 0; first < kWarpLanes; first += lanes) {
    std::array<std::set<std::uint64_t>, kBanks> words;
    for (const Access& access : accesses) {
      if (access.lane < first || access.lane >= first + lanes) continue;
      const std::uint64_t last = (access.address + access.bytes - 1) / kBankBytes;
      for (std::uint64_t word = access.address / kBankBytes; word <= last; ++word) words[word % kBanks].insert(word);
    }
    const std::size_t turns = std::ranges::max_element(words, {}, [](const auto& bank) { return bank.size(); })->size();
    extra += turns > 0 ? turns - 1 : 0;
  }
  return extra;
}

}  // namespace

void Traffic::add(std::span<const Access> together) {
  if (together.empty()) return;
  if (together.front().shared) {
    bank_conflicts_ += conflicts(together);
    return;
  }
  std::uint64_t bytes = 0;
  for (const Access& access : together) bytes += access.bytes;
  if (together.front().writes) {
    global_.written_bytes += bytes;
    global_.written_sectors += sectors(together);
  } else {
    global_.read_bytes += bytes;
    global_.read_sectors += sectors(together);
  }
}

}  // namespace secateur::ptx
