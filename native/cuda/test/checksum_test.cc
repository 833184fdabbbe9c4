#include "common/checksum.h"

#include <doctest/doctest.h>

#include <cstring>
#include <string_view>
#include <vector>

using secateur::checksum;
using secateur::copy_with_checksum;

namespace {

std::span<const std::uint8_t> bytes_of(std::string_view text) { return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()}; }

}  // namespace

TEST_CASE("bytes are summed up by XXH64, copied or not") {
  struct Known {
    std::string_view text;
    std::uint64_t checksum;
  };
  // From the specification of XXH64, seed 0.
  for (const Known& known : {Known{"", 0xef46db3751d8e999}, Known{"a", 0xd24ec4f1a98c6e5b}, Known{"abc", 0x44bc2cf5ad770999},
                             Known{"Nobody inspects the spammish repetition", 0xfbcea83c8a378bf1}}) {
    std::vector<std::uint8_t> target(known.text.size());
    CHECK(checksum(bytes_of(known.text)) == known.checksum);
    CHECK(copy_with_checksum(target.data(), bytes_of(known.text)) == known.checksum);
  }
}

TEST_CASE("every byte is copied, whatever the length and the alignment, and none beyond") {
  std::vector<std::uint8_t> source(200);
  for (std::size_t i = 0; i < source.size(); ++i) source[i] = static_cast<std::uint8_t>(i + 1);
  for (std::size_t length = 0; length + 3 <= source.size(); ++length) {
    std::vector<std::uint8_t> target(source.size() + 2);
    const std::span<const std::uint8_t> part = std::span(source).subspan(3, length);
    CHECK(copy_with_checksum(target.data() + 1, part) == checksum(part));
    CHECK(target.front() == 0);
    CHECK(target[length + 1] == 0);
    CHECK(std::memcmp(target.data() + 1, source.data() + 3, length) == 0);
  }
}
