// Names of this program's functions, those of no external linkage included.
#pragma once

#include <string>

namespace secateur::test {

// Demangled, with the parameters; empty when the program has no symbol for the address.
std::string function_name(const void* function);

// A mangled name demangled; as given when it is none.
std::string demangled(const std::string& name);

// Of a demangled name of a kernel: without parameters and the namespaces of all kernels, `multiply<64>`.
std::string short_name(const std::string& demangled_name);

}  // namespace secateur::test
