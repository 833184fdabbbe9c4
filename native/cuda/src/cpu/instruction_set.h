// The vector instructions that loops are compiled for, and the choice among them at run time.
#pragma once

#include <span>
#include <string_view>

namespace secateur::cpu {

enum class InstructionSet { kGeneric, kAvx2, kAvx512 };

std::string_view name_of(InstructionSet instruction_set);

// Those this processor has, the widest first; kGeneric is always there.
std::span<const InstructionSet> supported_instruction_sets();

// The widest of this processor, or the one the environment variable SECATEUR_INSTRUCTION_SET names (avx512, avx2, generic). Results differ
// in their last bits between instruction sets. Throws InvalidArgument for a name that is unknown or not supported here.
InstructionSet selected_instruction_set();

}  // namespace secateur::cpu
