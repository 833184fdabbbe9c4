#include "cpu/element_type.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

using secateur::ElementType;

namespace {

// The value of fp16 bits by its definition.
double value_of_f16(std::uint32_t bits) {
  const double sign = (bits & 0x8000U) != 0 ? -1.0 : 1.0;
  const int exponent = static_cast<int>((bits >> 10) & 0x1fU);
  const double mantissa = static_cast<double>(bits & 0x3ffU);
  if (exponent == 31) return mantissa == 0 ? sign * INFINITY : NAN;
  return exponent == 0 ? sign * std::ldexp(mantissa, -24) : sign * std::ldexp(1024 + mantissa, exponent - 25);
}

std::vector<float> widen_all(ElementType type) {
  std::vector<std::uint16_t> bits(65536);
  for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<std::uint16_t>(i);
  // One byte off, as tensors in a file may be.
  std::vector<std::uint8_t> bytes(2 * bits.size() + 1);
  std::memcpy(bytes.data() + 1, bits.data(), 2 * bits.size());
  std::vector<float> values(bits.size());
  secateur::cpu::widen(type, bytes.data() + 1, values.size(), values.data());
  return values;
}

}  // namespace

TEST_CASE("every fp16 value is widened exactly") {
  const std::vector<float> values = widen_all(ElementType::kF16);
  for (std::uint32_t bits = 0; bits < values.size(); ++bits) {
    const double expected = value_of_f16(bits);
    if (std::isnan(expected)) {
      REQUIRE(std::isnan(values[bits]));
    } else {
      REQUIRE(static_cast<double>(values[bits]) == expected);
      REQUIRE(std::signbit(values[bits]) == std::signbit(expected));
    }
  }
}

TEST_CASE("every bf16 value is the upper half of a float32") {
  const std::vector<float> values = widen_all(ElementType::kBF16);
  for (std::uint32_t bits = 0; bits < values.size(); ++bits) REQUIRE(std::bit_cast<std::uint32_t>(values[bits]) == bits << 16);
}

TEST_CASE("narrowing gives the nearest stored value, of two the even one") {
  for (const ElementType type : {ElementType::kF16, ElementType::kBF16}) {
    CAPTURE(static_cast<int>(type));
    const std::vector<float> values = widen_all(type);
    const auto narrowed = [&](float value) {
      std::uint8_t bytes[3];
      secateur::cpu::narrow(type, &value, 1, bytes + 1);
      std::uint16_t bits = 0;
      std::memcpy(&bits, bytes + 1, sizeof(bits));
      return bits;
    };
    const std::uint32_t infinity = type == ElementType::kF16 ? 0x7c00 : 0x7f80;
    for (std::uint32_t bits = 0; bits < infinity; ++bits) {
      REQUIRE(narrowed(values[bits]) == bits);
      REQUIRE(narrowed(-values[bits]) == (bits | 0x8000U));
      // Half way to the next, which is 2^16 or 2^128 after the largest.
      const double next = bits + 1 == infinity ? 2 * static_cast<double>(values[bits]) - static_cast<double>(values[bits - 1])
                                               : static_cast<double>(values[bits + 1]);
      const auto middle = static_cast<float>((static_cast<double>(values[bits]) + next) / 2);
      REQUIRE(narrowed(middle) == bits + bits % 2);
      REQUIRE(narrowed(std::nextafter(middle, 0.0F)) == bits);
      if (std::isfinite(std::nextafter(middle, INFINITY))) REQUIRE(narrowed(std::nextafter(middle, INFINITY)) == bits + 1);
    }
    REQUIRE(narrowed(INFINITY) == infinity);
    REQUIRE(std::isnan(values[narrowed(NAN)]));
  }
}
