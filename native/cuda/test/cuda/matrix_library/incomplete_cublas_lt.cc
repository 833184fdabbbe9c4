// A cuBLASLt that lacks nearly everything.
#include <cstddef>

extern "C" std::size_t cublasLtGetVersion() { return 130000; }
