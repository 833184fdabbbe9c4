#include "cuda/kernels/elementwise.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "cuda/kernels/cross_entropy.h"
#include "cuda/kernels/embedding.h"
#include "cuda/kernels/rotary.h"
#include "device_array.h"
#include "random_values.h"
#include "schedules.h"

namespace secateur::test {

TEST_CASE("element-wise operations, where quads of values are aligned and where not") {
  in_all_schedules([] {
    for (const std::size_t offset : {0U, 1U}) {
      for (const std::size_t size : {0U, 1U, 3U, 31U, 256U, 257U, 5000U}) {
        CAPTURE(offset);
        CAPTURE(size);
        const std::vector<float> x = random_values(offset + size, 1);
        const std::vector<float> y = random_values(size, 2);
        DeviceArray<float> other(y);
        const auto apply = [&](auto operation) {
          DeviceArray<float> target(x);
          REQUIRE(operation(target.data() + offset) == cudaSuccess);
          CHECK(target.is_guarded());
          const std::vector<float> result = target.read();
          // What lies in front is not touched.
          if (offset != 0) CHECK(result[0] == x[0]);
          return std::vector<float>(result.begin() + static_cast<std::ptrdiff_t>(offset), result.end());
        };
        const std::vector<float> sums = apply([&](float* target) { return gpu::add(target, other.data(), size, nullptr); });
        const std::vector<float> differences = apply([&](float* target) { return gpu::subtract(target, other.data(), size, nullptr); });
        const std::vector<float> positive = apply([&](float* target) { return gpu::relu(target, size, nullptr); });
        const std::vector<float> gated = apply([&](float* target) { return gpu::silu_multiply(target, other.data(), size, nullptr); });
        DeviceArray<float> source(x);
        DeviceArray<gpu::bfloat16> brains(size);
        REQUIRE(gpu::narrow(source.data() + offset, brains.data(), size, nullptr) == cudaSuccess);
        const std::vector<gpu::bfloat16> narrowed = brains.read();
        CHECK(brains.is_guarded());
        for (std::size_t i = 0; i < size; ++i) {
          const float value = x[offset + i];
          REQUIRE(sums[i] == value + y[i]);
          REQUIRE(differences[i] == value - y[i]);
          REQUIRE(positive[i] == std::max(value, 0.0F));
          const double gate = static_cast<double>(value);
          REQUIRE(std::abs(static_cast<double>(gated[i]) - gate / (1 + std::exp(-gate)) * static_cast<double>(y[i])) < 1e-5);
          REQUIRE(narrowed[i].bits == gpu::narrow(value).bits);
        }
      }
    }
  });
}

TEST_CASE("stored types are widened exactly and narrowed to the nearest") {
  std::vector<gpu::float16> halves(65536);
  std::vector<gpu::bfloat16> brains(65536);
  for (unsigned bits = 0; bits < 65536; ++bits) {
    halves[bits] = {static_cast<std::uint16_t>(bits)};
    brains[bits] = {static_cast<std::uint16_t>(bits)};
  }
  DeviceArray<gpu::float16> device_halves(halves);
  DeviceArray<gpu::bfloat16> device_brains(brains);
  DeviceArray<float> widened(65536);
  REQUIRE(gpu::widen(device_halves.data(), widened.data(), 65536, nullptr) == cudaSuccess);
  const std::vector<float> from_halves = widened.read();
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const unsigned exponent = (bits >> 10) & 31U;
    const double fraction = bits & 1023U;
    double expected = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, static_cast<int>(exponent) - 25);
    if (exponent == 31) expected = fraction == 0 ? INFINITY : NAN;
    if ((bits & 0x8000U) != 0) expected = -expected;
    if (std::isnan(expected)) {
      REQUIRE(std::isnan(from_halves[bits]));
    } else {
      REQUIRE(static_cast<double>(from_halves[bits]) == expected);
    }
  }
  REQUIRE(gpu::widen(device_brains.data(), widened.data(), 65536, nullptr) == cudaSuccess);
  DeviceArray<gpu::bfloat16> again(65536);
  REQUIRE(gpu::narrow(widened.data(), again.data(), 65536, nullptr) == cudaSuccess);
  const std::vector<float> from_brains = widened.read();
  const std::vector<gpu::bfloat16> narrowed = again.read();
  for (unsigned bits = 0; bits < 65536; ++bits) {
    if (std::isnan(from_brains[bits])) {
      REQUIRE(std::isnan(gpu::widen(narrowed[bits])));
    } else {
      REQUIRE(narrowed[bits].bits == bits);
    }
  }
  CHECK(gpu::narrow(1.0F + 0x1.0p-8F).bits == gpu::narrow(1.0F).bits);
  CHECK(gpu::narrow(1.0F + 0x1.8p-7F).bits == gpu::narrow(1.0F + 0x1.0p-6F).bits);
}

TEST_CASE("float16 is narrowed to the nearest, ties to even, from the least to the largest value") {
  constexpr unsigned kInfinity = 0x7c00U;
  const auto value_of = [](unsigned bits) {
    const unsigned exponent = bits >> 10;
    const auto fraction = static_cast<float>(bits & 1023U);
    return exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, static_cast<int>(exponent) - 25);
  };
  std::vector<float> values;
  std::vector<unsigned> expected;
  const auto expect = [&](float value, unsigned bits) {
    values.insert(values.end(), {value, -value});
    expected.insert(expected.end(), {bits, bits | 0x8000U});
  };
  // No two threads meet there, and there are a quarter of a million of them.
  const unsigned step = cuda_on_host::kRaceCheck ? 97 : 1;
  for (unsigned bits = 0; bits < kInfinity; bits += step) {
    // What would be the next is 65536 behind the largest.
    const float between = (value_of(bits) + value_of(bits + 1)) / 2;
    expect(value_of(bits), bits);
    expect(std::nextafter(between, 0.0F), bits);
    expect(between, bits % 2 == 0 ? bits : bits + 1);
    expect(std::nextafter(between, 1e30F), bits + 1);
  }
  expect(1e30F, kInfinity);
  expect(std::numeric_limits<float>::infinity(), kInfinity);
  expect(std::numeric_limits<float>::denorm_min(), 0);
  DeviceArray<float> source(values);
  DeviceArray<gpu::float16> halves(values.size());
  REQUIRE(gpu::narrow(source.data(), halves.data(), values.size(), nullptr) == cudaSuccess);
  const std::vector<gpu::float16> narrowed = halves.read();
  for (std::size_t i = 0; i < values.size(); ++i) {
    CAPTURE(values[i]);
    REQUIRE(narrowed[i].bits == expected[i]);
  }
  DeviceArray<float> invalid(std::vector<float>{std::nanf("")});
  REQUIRE(gpu::narrow(invalid.data(), halves.data(), 1, nullptr) == cudaSuccess);
  CHECK((halves.read()[0].bits & 0x7fffU) > kInfinity);
}

TEST_CASE("values that are not finite are found wherever they are") {
  constexpr std::size_t kSize = 4999;
  for (const std::size_t offset : {std::size_t{0}, std::size_t{1}}) {
    for (const std::size_t place : {std::size_t{0}, std::size_t{1}, std::size_t{30}, std::size_t{31}, kSize - 1, kSize}) {
      for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
        std::vector<float> x = random_values(offset + kSize + 1, 1);
        // The last place lies behind the end, where nobody may look.
        x[offset + place] = bad;
        DeviceArray<float> values(x);
        DeviceArray<unsigned> flag(std::vector<unsigned>{0});
        REQUIRE(gpu::flag_non_finite(values.data() + offset, kSize, flag.data(), nullptr) == cudaSuccess);
        CHECK(flag.read()[0] == (place < kSize ? 1U : 0U));
      }
    }
  }
}

TEST_CASE("embedding widens the stored table; without learned positions nothing is added") {
  constexpr std::size_t kSize = 130;
  const std::vector<std::int32_t> ids = {2, 0, 1};
  std::vector<gpu::float16> halves(3 * kSize);
  std::vector<gpu::bfloat16> brains(3 * kSize);
  for (std::size_t i = 0; i < halves.size(); ++i) {
    halves[i] = {static_cast<std::uint16_t>(0x3000U + i)};
    brains[i] = {static_cast<std::uint16_t>(0xbf00U + i)};
  }
  DeviceArray<std::int32_t> device_ids(ids);
  DeviceArray<gpu::float16> device_halves(halves);
  DeviceArray<gpu::bfloat16> device_brains(brains);
  DeviceArray<float> from_halves(ids.size() * kSize);
  DeviceArray<float> from_brains(ids.size() * kSize);
  REQUIRE(gpu::embed({ids.size(), 3, kSize, device_ids.data(), device_halves.data(), gpu::StoredType::kF16, nullptr, from_halves.data()},
                     nullptr) == cudaSuccess);
  REQUIRE(gpu::embed({ids.size(), 3, kSize, device_ids.data(), device_brains.data(), gpu::StoredType::kBF16, nullptr, from_brains.data()},
                     nullptr) == cudaSuccess);
  const std::vector<float> half_states = from_halves.read();
  const std::vector<float> brain_states = from_brains.read();
  CHECK(from_halves.is_guarded());
  CHECK(from_brains.is_guarded());
  for (std::size_t token = 0; token < ids.size(); ++token) {
    for (std::size_t i = 0; i < kSize; ++i) {
      const std::size_t stored = static_cast<std::size_t>(ids[token]) * kSize + i;
      REQUIRE(half_states[token * kSize + i] == gpu::widen(halves[stored]));
      REQUIRE(brain_states[token * kSize + i] == gpu::widen(brains[stored]));
    }
  }
}

TEST_CASE("tokens are embedded with their positions, rotated, and the last gathered") {
  in_all_schedules([] {
    constexpr std::size_t kSamples = 2;
    constexpr std::size_t kLength = 5;
    constexpr std::size_t kSize = 12;
    const std::vector<float> table = random_values(7 * kSize, 1);
    const std::vector<float> positions = random_values(kLength * kSize, 2);
    const std::vector<std::int32_t> ids = {0, 6, 3, 3, 1, 2, 5, 4, 0, 6};
    DeviceArray<float> device_table(table);
    DeviceArray<float> device_positions(positions);
    DeviceArray<std::int32_t> device_ids(ids);
    DeviceArray<float> states(ids.size() * kSize);
    REQUIRE(gpu::embed({ids.size(), kLength, kSize, device_ids.data(), device_table.data(), gpu::StoredType::kF32, device_positions.data(),
                        states.data()},
                       nullptr) == cudaSuccess);
    const std::vector<float> embedded = states.read();
    CHECK(states.is_guarded());
    for (std::size_t token = 0; token < ids.size(); ++token) {
      for (std::size_t i = 0; i < kSize; ++i) {
        REQUIRE(embedded[token * kSize + i] ==
                table[static_cast<std::size_t>(ids[token]) * kSize + i] + positions[token % kLength * kSize + i]);
      }
    }
    DeviceArray<float> last(kSamples * kSize);
    REQUIRE(gpu::gather_last(states.data(), kSamples, kLength, kSize, last.data(), nullptr) == cudaSuccess);
    const std::vector<float> gathered = last.read();
    for (std::size_t i = 0; i < kSamples * kSize; ++i) {
      REQUIRE(gathered[i] == embedded[((i / kSize + 1) * kLength - 1) * kSize + i % kSize]);
    }
    constexpr std::size_t kHeads = 2;
    constexpr std::size_t kHalf = kSize / kHeads / 2;
    std::vector<float> cosines;
    std::vector<float> sines;
    for (std::size_t i = 0; i < kLength * kHalf; ++i) {
      cosines.push_back(std::cos(0.1F * static_cast<float>(i)));
      sines.push_back(std::sin(0.1F * static_cast<float>(i)));
    }
    DeviceArray<float> device_cosines(cosines);
    DeviceArray<float> device_sines(sines);
    REQUIRE(gpu::rotate({ids.size(), kLength, kHeads, kSize / kHeads, device_cosines.data(), device_sines.data(), states.data()},
                        nullptr) == cudaSuccess);
    const std::vector<float> rotated = states.read();
    for (std::size_t token = 0; token < ids.size(); ++token) {
      for (std::size_t head = 0; head < kHeads; ++head) {
        for (std::size_t pair = 0; pair < kHalf; ++pair) {
          const std::size_t first = token * kSize + head * 2 * kHalf + pair;
          const float cosine = cosines[token % kLength * kHalf + pair];
          const float sine = sines[token % kLength * kHalf + pair];
          REQUIRE(std::abs(rotated[first] - (embedded[first] * cosine - embedded[first + kHalf] * sine)) < 1e-6F);
          REQUIRE(std::abs(rotated[first + kHalf] - (embedded[first + kHalf] * cosine + embedded[first] * sine)) < 1e-6F);
        }
      }
    }
  });
}

TEST_CASE("the loss over tiles of the vocabulary is that over all of it") {
  in_all_schedules([] {
    constexpr std::size_t kTokens = 3;
    constexpr std::size_t kWords = 700;
    const std::vector<float> logits = random_values(kTokens * kWords, 4);
    const std::vector<std::int32_t> next = {0, 511, 699};
    DeviceArray<std::int32_t> device_next(next);
    DeviceArray<double> log_sums(kTokens);
    DeviceArray<float> next_logits(kTokens);
    for (std::size_t first = 0; first < kWords; first += 512) {
      const std::size_t words = std::min<std::size_t>(512, kWords - first);
      std::vector<float> tile;
      for (std::size_t token = 0; token < kTokens; ++token) {
        tile.insert(tile.end(), logits.begin() + static_cast<std::ptrdiff_t>(token * kWords + first),
                    logits.begin() + static_cast<std::ptrdiff_t>(token * kWords + first + words));
      }
      DeviceArray<float> device_tile(tile);
      REQUIRE(gpu::accumulate_cross_entropy(
                  {kTokens, words, first, device_tile.data(), device_next.data(), log_sums.data(), next_logits.data()}, nullptr) ==
              cudaSuccess);
      require_success(cudaDeviceSynchronize());
    }
    const std::vector<double> sums = log_sums.read();
    const std::vector<float> targets = next_logits.read();
    for (std::size_t token = 0; token < kTokens; ++token) {
      double sum = 0;
      for (std::size_t word = 0; word < kWords; ++word) sum += std::exp(static_cast<double>(logits[token * kWords + word]));
      CHECK(sums[token] == doctest::Approx(std::log(sum)).epsilon(1e-6));
      CHECK(targets[token] == logits[token * kWords + static_cast<std::size_t>(next[token])]);
    }
  });
}

}  // namespace secateur::test
