#include "sweep.h"

namespace secateur::allocation {

namespace generic {
void sweep(const SweepTask& task);
}
#if defined(__x86_64__)
namespace avx2 {
void sweep(const SweepTask& task);
}
namespace avx512 {
void sweep(const SweepTask& task);
}
#endif

SweepFunction sweep_function(cpu::InstructionSet instruction_set) {
  switch (instruction_set) {
#if defined(__x86_64__)
    case cpu::InstructionSet::kAvx512:
      return avx512::sweep;
    case cpu::InstructionSet::kAvx2:
      return avx2::sweep;
#endif
    default:
      return generic::sweep;
  }
}

}  // namespace secateur::allocation
