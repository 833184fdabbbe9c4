#define SECATEUR_ROW_SCAN_NAMESPACE avx2
#define SECATEUR_ROW_SCAN_VECTOR_BYTES 32
#include "row_scan_kernel.h"
