#define DOCTEST_CONFIG_IMPLEMENT
#include <cblas.h>
#include <doctest/doctest.h>

int main(int argc, char** argv) {
  // Threads are the engine's own; the matrix library must not add to them.
  openblas_set_num_threads(1);
  return doctest::Context(argc, argv).run();
}
