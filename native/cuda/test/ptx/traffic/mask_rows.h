// Rows of masks in models of traffic, and a mask for traffic that depends on what is dropped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "traffic/traffic_model.h"

namespace secateur::test {

// Every other weight is dropped: of columns 0, 2, 4 and so on.
inline std::vector<std::uint8_t> alternating_mask(std::size_t rows, std::size_t columns) {
  return std::vector<std::uint8_t>(rows * ((columns + 7) / 8), 0x55);
}

// A thread per column looks at the byte that has its bit.
inline TrafficModel& read_mask_row(TrafficModel& model, std::size_t row, std::size_t columns) {
  return model.read_places<std::uint8_t>(columns, [=](std::size_t column) { return row * ((columns + 7) / 8) + column / 8; });
}

// A warp makes the bits of 32 columns, and its first four lanes write them, to the bytes from `first` on.
inline TrafficModel& write_mask_row(TrafficModel& model, std::size_t first, std::size_t bytes) {
  constexpr std::size_t kWarpLanes = 32;
  constexpr std::size_t kWarpBytes = kWarpLanes / 8;
  const std::size_t threads = (bytes + kWarpBytes - 1) / kWarpBytes * kWarpLanes;
  return model.write_places<std::uint8_t>(threads, [=](std::size_t thread) {
    const std::size_t byte = thread / kWarpLanes * kWarpBytes + thread % kWarpLanes;
    return thread % kWarpLanes < kWarpBytes && byte < bytes ? first + byte : TrafficModel::kNowhere;
  });
}

// The place of a column for the threads whose weight is dropped, or kept.
inline auto dropped_of_row(std::size_t row, std::size_t columns) {
  return [=](std::size_t column) { return column % 2 == 0 ? row * columns + column : TrafficModel::kNowhere; };
}
inline auto kept_of_row(std::size_t row, std::size_t columns) {
  return [=](std::size_t column) { return column % 2 == 0 ? TrafficModel::kNowhere : row * columns + column; };
}

}  // namespace secateur::test
