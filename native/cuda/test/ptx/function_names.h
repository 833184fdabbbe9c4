// Names of this program's functions, those of no external linkage included.
#pragma once

#include <string>

namespace secateur::test {

// Demangled, with the parameters; empty when the program has no symbol for the address.
std::string function_name(const void* function);

// A mangled name demangled; as given when it is none.
std::string demangled(const std::string& name);

}  // namespace secateur::test
