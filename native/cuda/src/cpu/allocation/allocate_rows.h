// allocate_rows with the instruction set given, for tests; the public function takes the best one.
#pragma once

#include "cpu/instruction_set.h"
#include "secateur/allocation.h"

namespace secateur::allocation {

AllocatedRows allocate_rows(const AllocationInput& input, const AllocationOptions& options, ThreadPool& pool, CallContext& context,
                            cpu::InstructionSet instruction_set);

}  // namespace secateur::allocation
