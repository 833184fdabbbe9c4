// The vector instructions that a kernel is compiled for; the best one this processor has is chosen at run time.
#pragma once

#include <string_view>

namespace secateur::allocation {

enum class InstructionSet { kGeneric, kAvx2, kAvx512 };

bool is_supported(InstructionSet instruction_set);
InstructionSet best_instruction_set();
std::string_view name_of(InstructionSet instruction_set);

}  // namespace secateur::allocation
