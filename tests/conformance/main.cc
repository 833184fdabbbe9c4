// Holds a backend to the float64 reference and to the contract of backend.h. The same cases for every backend:
//   secateur_conformance [--backend=cpu|cuda] [doctest's options]
#include <doctest/doctest.h>

#include <cstdio>
#include <exception>
#include <string>
#include <string_view>

#include "backend_under_test.h"
#include "secateur/error.h"

namespace {

// Tells the test runner that the program could not run here.
constexpr int kSkipped = 77;

}  // namespace

int main(int argc, char** argv) {
  constexpr std::string_view kOption = "--backend=";
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument.starts_with(kOption)) secateur::test::choose_backend(std::string(argument.substr(kOption.size())));
  }
  try {
    const secateur::BackendDescription description = secateur::test::open_backend(1, 1U << 20)->describe();
    std::printf("backend: %s, %s, %s\n", description.backend.c_str(), description.instruction_set.c_str(), description.gemm.c_str());
  } catch (const std::exception& error) {
    std::printf("skipped: %s\n", error.what());
    return kSkipped;
  }
  return doctest::Context(argc, argv).run();
}
