#include "traffic/traffic_model.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <set>

namespace secateur::test {

void TrafficModel::add(std::uint64_t& bytes, std::uint64_t& sectors, const std::vector<std::size_t>& places, std::size_t value_bytes) {
  constexpr std::size_t kWarpLanes = 32;
  for (std::size_t first = 0; first < places.size(); first += kWarpLanes) {
    std::set<std::size_t> touched;
    for (std::size_t thread = first; thread < std::min(first + kWarpLanes, places.size()); ++thread) {
      if (places[thread] == kNowhere) continue;
      bytes += value_bytes;
      // Values do not lie across sectors.
      touched.insert(places[thread] * value_bytes / ptx::Traffic::kSectorBytes);
    }
    sectors += touched.size();
  }
}

void check_traffic(const ptx::Traffic& traffic, const TrafficModel& model) {
  CHECK(traffic.global().read_bytes == model.global().read_bytes);
  CHECK(traffic.global().read_sectors == model.global().read_sectors);
  CHECK(traffic.global().written_bytes == model.global().written_bytes);
  CHECK(traffic.global().written_sectors == model.global().written_sectors);
  CHECK(traffic.bank_conflicts() == model.bank_conflicts());
}

void check_whole_sectors(const ptx::Traffic& traffic, std::size_t read_bytes, std::size_t written_bytes) {
  CHECK(traffic.global().read_bytes == read_bytes);
  CHECK(traffic.global().read_sectors * ptx::Traffic::kSectorBytes == read_bytes);
  CHECK(traffic.global().written_bytes == written_bytes);
  CHECK(traffic.global().written_sectors * ptx::Traffic::kSectorBytes == written_bytes);
  CHECK(traffic.bank_conflicts() == 0);
}

}  // namespace secateur::test
