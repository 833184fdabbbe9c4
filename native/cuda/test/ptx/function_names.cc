#include "function_names.h"

#include <cxxabi.h>
#include <elf.h>
#include <link.h>

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <stdexcept>
#include <vector>

namespace secateur::test {
namespace {

// Where the program is loaded.
std::uintptr_t load_address() {
  std::uintptr_t address = 0;
  // The program itself comes first.
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* result) {
        *static_cast<std::uintptr_t*>(result) = info->dlpi_addr;
        return 1;
      },
      &address);
  return address;
}

// By address in the file: the mangled names of functions, from the symbol table, which unlike the dynamic one has the local ones too.
std::map<std::uintptr_t, std::string> read_symbols() {
  std::ifstream file("/proc/self/exe", std::ios::binary);
  const std::vector<char> image((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto* const header = reinterpret_cast<const Elf64_Ehdr*>(image.data());
  const auto* const sections = reinterpret_cast<const Elf64_Shdr*>(image.data() + header->e_shoff);
  std::map<std::uintptr_t, std::string> symbols;
  for (std::size_t i = 0; i < header->e_shnum; ++i) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    const char* const names = image.data() + sections[sections[i].sh_link].sh_offset;
    const auto* const table = reinterpret_cast<const Elf64_Sym*>(image.data() + sections[i].sh_offset);
    for (std::size_t j = 0; j < sections[i].sh_size / sizeof(Elf64_Sym); ++j) {
      if (ELF64_ST_TYPE(table[j].st_info) == STT_FUNC) symbols.emplace(table[j].st_value, names + table[j].st_name);
    }
  }
  if (symbols.empty()) throw std::runtime_error("This program has no symbol table; the tests need one to find kernels by their names.");
  return symbols;
}

}  // namespace

std::string demangled(const std::string& name) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status), &std::free);
  return status == 0 ? text.get() : name;
}

std::string short_name(const std::string& demangled_name) {
  std::string name = demangled_name;
  for (const std::string scope : {"(anonymous namespace)::", "secateur::gpu::", "void "}) {
    for (std::size_t at = name.find(scope); at != std::string::npos; at = name.find(scope)) name.erase(at, scope.size());
  }
  name.erase(std::min(name.find('('), name.size()));
  // Template arguments that are unsigned.
  for (std::size_t at = 1; at < name.size(); ++at) {
    if (name[at] == 'u' && std::isdigit(static_cast<unsigned char>(name[at - 1])) != 0) name.erase(at, 1);
  }
  return name;
}

std::string function_name(const void* function) {
  static const std::map<std::uintptr_t, std::string> symbols = read_symbols();
  static const std::uintptr_t base = load_address();
  const auto found = symbols.find(reinterpret_cast<std::uintptr_t>(function) - base);
  return found == symbols.end() ? std::string() : demangled(found->second);
}

}  // namespace secateur::test
