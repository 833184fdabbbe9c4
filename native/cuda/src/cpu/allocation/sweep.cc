#include "sweep.h"

namespace secateur::allocation {

namespace generic {
extern const SweepFunctions kSweepFunctions;
}
#if defined(__x86_64__)
namespace avx2 {
extern const SweepFunctions kSweepFunctions;
}
namespace avx512 {
extern const SweepFunctions kSweepFunctions;
}
#endif

SweepFunctions sweep_functions(cpu::InstructionSet instruction_set) {
  switch (instruction_set) {
#if defined(__x86_64__)
    case cpu::InstructionSet::kAvx512:
      return avx512::kSweepFunctions;
    case cpu::InstructionSet::kAvx2:
      return avx2::kSweepFunctions;
#endif
    default:
      return generic::kSweepFunctions;
  }
}

}  // namespace secateur::allocation
