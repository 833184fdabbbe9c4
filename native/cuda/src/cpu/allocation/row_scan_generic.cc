#define SECATEUR_ROW_SCAN_NAMESPACE generic
#define SECATEUR_ROW_SCAN_VECTOR_BYTES 16
#include "row_scan_kernel.h"
