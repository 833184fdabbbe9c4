// Orders of threads and blocks that every kernel is tested in.
#pragma once

#include "cuda_on_host.h"

namespace secateur::test {

template <class Check>
void in_all_schedules(const Check& check) {
  // Neither races nor the PTX depend on the order, and both take long.
  if (cuda_on_host::kRaceCheck || cuda_on_host::has_launch_hook()) return check();
  using cuda_on_host::Schedule;
  using cuda_on_host::ThreadOrder;
  for (const Schedule& schedule : {Schedule{ThreadOrder::kUp, false, 1}, Schedule{ThreadOrder::kDown, true, 1},
                                   Schedule{ThreadOrder::kShuffled, false, 7}, Schedule{ThreadOrder::kWarpAhead, false, 1}}) {
    cuda_on_host::set_schedule(schedule);
    check();
  }
  cuda_on_host::set_schedule({});
}

}  // namespace secateur::test
