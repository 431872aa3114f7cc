// Stands in for NVIDIA's header: what libtorch's headers name of it, opaque. See README.md.
#pragma once
#include "cusolver_common.h"
typedef struct cusolverDnContext *cusolverDnHandle_t;
