// Stands in for NVIDIA's header: what libtorch's headers name of it, opaque. See README.md.
#pragma once
typedef struct cublasContext *cublasHandle_t;
typedef enum cublasStatus : int { CUBLAS_STATUS_SUCCESS = 0 } cublasStatus_t;
