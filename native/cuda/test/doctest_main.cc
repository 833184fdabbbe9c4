#include <doctest/doctest.h>

// Of programs that have no main of their own.
int main(int argc, char** argv) { return doctest::Context(argc, argv).run(); }
