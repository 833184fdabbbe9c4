#include "row_scan.h"

namespace secateur::allocation {

namespace generic {
extern const RowScanFunctions kRowScanFunctions;
}
#if defined(__x86_64__)
namespace avx2 {
extern const RowScanFunctions kRowScanFunctions;
}
namespace avx512 {
extern const RowScanFunctions kRowScanFunctions;
}
#endif

RowScanFunctions row_scan_functions(cpu::InstructionSet instruction_set) {
  switch (instruction_set) {
#if defined(__x86_64__)
    case cpu::InstructionSet::kAvx512:
      return avx512::kRowScanFunctions;
    case cpu::InstructionSet::kAvx2:
      return avx2::kRowScanFunctions;
#endif
    default:
      return generic::kRowScanFunctions;
  }
}

}  // namespace secateur::allocation
