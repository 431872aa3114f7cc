// Stands in for NVIDIA's header: what libtorch's headers name of it, opaque. See README.md.
#pragma once
typedef struct cublasLtContext *cublasLtHandle_t;
