#include "cpu/vector_math.h"

#include "cpu/pair_math.h"

namespace secateur::cpu {

namespace generic {
extern const VectorMath kVectorMath;
}
#if defined(__x86_64__)
namespace avx2 {
extern const VectorMath kVectorMath;
}
namespace avx512 {
extern const VectorMath kVectorMath;
extern const PairMath kPairMath;
}  // namespace avx512
#endif

const VectorMath& vector_math(InstructionSet instruction_set) {
  switch (instruction_set) {
#if defined(__x86_64__)
    case InstructionSet::kAvx512:
      return avx512::kVectorMath;
    case InstructionSet::kAvx2:
      return avx2::kVectorMath;
#endif
    default:
      return generic::kVectorMath;
  }
}

const VectorMath& vector_math() {
  static const VectorMath& selected = vector_math(selected_instruction_set());
  return selected;
}

const PairMath* pair_math() {
#if defined(__x86_64__)
  if (selected_instruction_set() == InstructionSet::kAvx512 && __builtin_cpu_supports("avx512bf16") != 0) return &avx512::kPairMath;
#endif
  return nullptr;
}

}  // namespace secateur::cpu
