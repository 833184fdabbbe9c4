#include "common/sketch_signs.h"

namespace secateur {

namespace {

// A step of splitmix64: every bit of the result depends on every bit of the argument.
std::uint64_t mixed(std::uint64_t value) noexcept {
  value += 0x9e3779b97f4a7c15U;
  value = (value ^ value >> 30U) * 0xbf58476d1ce4e5b9U;
  value = (value ^ value >> 27U) * 0x94d049bb133111ebU;
  return value ^ value >> 31U;
}

}  // namespace

std::uint64_t sketch_signs(SketchPlace place, std::size_t word) noexcept {
  return mixed(mixed(mixed(mixed(place.group) ^ place.sample) ^ place.sketch) ^ word);
}

}  // namespace secateur
