#define SECATEUR_VECTOR_NAMESPACE avx512
#define SECATEUR_VECTOR_BYTES 64
#include "cpu/vector_math_table.h"
