// What a kernel is to ask of memory, written down access by access as its operation needs them, and the check that it asks for just that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ptx/traffic.h"

namespace secateur::test {

// Threads are taken in warps, as in a launch: an access is that of 32 of them. Arrays begin at a sector's begin.
class TrafficModel {
 public:
  // What place_of returns for a thread that takes no part.
  static constexpr std::size_t kNowhere = SIZE_MAX;

  // Thread i, of so many, takes the value at place_of(i) of an array.
  template <class Value, class PlaceOf>
  TrafficModel& read_places(std::size_t threads, const PlaceOf& place_of) {
    add(counts_.read_bytes, counts_.read_sectors, places_of_threads(threads, place_of), sizeof(Value));
    return *this;
  }
  template <class Value, class PlaceOf>
  TrafficModel& write_places(std::size_t threads, const PlaceOf& place_of) {
    add(counts_.written_bytes, counts_.written_sectors, places_of_threads(threads, place_of), sizeof(Value));
    return *this;
  }

  // Threads that follow one another take values that do: `count` of them, from place `first` of an array on.
  template <class Value>
  TrafficModel& read_run(std::size_t first, std::size_t count) {
    return read_places<Value>(count, [=](std::size_t i) { return first + i; });
  }
  template <class Value>
  TrafficModel& write_run(std::size_t first, std::size_t count) {
    return write_places<Value>(count, [=](std::size_t i) { return first + i; });
  }

  // So many threads take the same value, or the only one writes it.
  template <class Value>
  TrafficModel& read_same(std::size_t threads) {
    return read_places<Value>(threads, [](std::size_t) { return 0; });
  }
  template <class Value>
  TrafficModel& write_one() {
    return write_run<Value>(0, 1);
  }

  TrafficModel& conflict(std::size_t turns) {
    bank_conflicts_ += turns;
    return *this;
  }

  const ptx::Traffic::Counts& global() const { return counts_; }
  std::uint64_t bank_conflicts() const { return bank_conflicts_; }

 private:
  template <class PlaceOf>
  static std::vector<std::size_t> places_of_threads(std::size_t threads, const PlaceOf& place_of) {
    std::vector<std::size_t> places;
    for (std::size_t thread = 0; thread < threads; ++thread) places.push_back(place_of(thread));
    return places;
  }
  static void add(std::uint64_t& bytes, std::uint64_t& sectors, const std::vector<std::size_t>& places, std::size_t value_bytes);

  ptx::Traffic::Counts counts_;
  std::uint64_t bank_conflicts_ = 0;
};

// To the byte, the sector and the turn.
void check_traffic(const ptx::Traffic& traffic, const TrafficModel& model);
// Reads and writes as many bytes, in whole sectors that are all needed, without conflicts.
void check_whole_sectors(const ptx::Traffic& traffic, std::size_t read_bytes, std::size_t written_bytes);

}  // namespace secateur::test
