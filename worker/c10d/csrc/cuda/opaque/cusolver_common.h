// Stands in for NVIDIA's header: what libtorch's headers name of it, opaque. See README.md.
#pragma once
typedef enum cusolverStatus : int { CUSOLVER_STATUS_SUCCESS = 0 } cusolverStatus_t;
