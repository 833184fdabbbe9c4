#define SECATEUR_VECTOR_NAMESPACE generic
#define SECATEUR_VECTOR_BYTES 16
#include "cpu/vector_math_table.h"
