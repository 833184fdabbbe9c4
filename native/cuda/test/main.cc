#include <doctest/doctest.h>

#include <cstdio>

#include "cpu/instruction_set.h"
#include "secateur/error.h"

namespace {

// Tells the test runner that the program could not run here.
constexpr int kSkipped = 77;

}  // namespace

int main(int argc, char** argv) {
  try {
    std::printf("instruction set: %s\n", secateur::cpu::name_of(secateur::cpu::selected_instruction_set()).data());
  } catch (const secateur::Error& error) {
    std::printf("skipped: %s\n", error.what());
    return kSkipped;
  }
  return doctest::Context(argc, argv).run();
}
