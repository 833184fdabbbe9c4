#define SECATEUR_ROW_SCAN_NAMESPACE avx512
#define SECATEUR_ROW_SCAN_VECTOR_BYTES 64
#include "row_scan_kernel.h"
