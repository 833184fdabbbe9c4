// Stands in for CUDA's header of this name where the backend is built for the host.
#pragma once

#include "cuda_on_host.h"
