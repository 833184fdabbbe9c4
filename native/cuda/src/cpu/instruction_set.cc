#include "cpu/instruction_set.h"

#include <cstdlib>
#include <string>
#include <vector>

#include "secateur/error.h"

namespace secateur::cpu {

namespace {

std::vector<InstructionSet> detect() {
  std::vector<InstructionSet> found;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("x86-64-v4") != 0) found.push_back(InstructionSet::kAvx512);
  if (__builtin_cpu_supports("x86-64-v3") != 0) found.push_back(InstructionSet::kAvx2);
#endif
  found.push_back(InstructionSet::kGeneric);
  return found;
}

InstructionSet select() {
  const char* const wanted = std::getenv("SECATEUR_INSTRUCTION_SET");
  if (wanted == nullptr || *wanted == '\0') return supported_instruction_sets().front();
  std::string names;
  for (const InstructionSet instruction_set : supported_instruction_sets()) {
    if (name_of(instruction_set) == wanted) return instruction_set;
    names += (names.empty() ? "" : ", ") + std::string(name_of(instruction_set));
  }
  throw Error(ErrorCode::kInvalidArgument, "SECATEUR_INSTRUCTION_SET is '" + std::string(wanted) + "'; this processor has " + names + ".");
}

}  // namespace

std::string_view name_of(InstructionSet instruction_set) {
  switch (instruction_set) {
    case InstructionSet::kAvx512:
      return "avx512";
    case InstructionSet::kAvx2:
      return "avx2";
    case InstructionSet::kGeneric:
      break;
  }
  return "generic";
}

std::span<const InstructionSet> supported_instruction_sets() {
  static const std::vector<InstructionSet> supported = detect();
  return supported;
}

InstructionSet selected_instruction_set() {
  static const InstructionSet selected = select();
  return selected;
}

}  // namespace secateur::cpu
