#define SECATEUR_VECTOR_NAMESPACE avx2
#define SECATEUR_VECTOR_BYTES 32
#include "cpu/vector_math_table.h"
