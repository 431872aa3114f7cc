// Stands in for NVIDIA's header: what libtorch's headers name of it, opaque. See README.md.
#pragma once
typedef struct cusparseContext *cusparseHandle_t;
typedef enum cusparseStatus : int { CUSPARSE_STATUS_SUCCESS = 0 } cusparseStatus_t;
