// C ABI of `libcredence_nccl.so`, under the rules of shim.h. `src/nccl.rs` looks these functions up by name.
#pragma once

#include "../shim.h"

#ifdef __cplusplus
extern "C" {
#endif

// C10D_ABI and libtorch's version that the library was compiled for. Called first: where they are not those of the
// program, nothing else may be called.
int32_t credence_nccl_abi(void);
const char *credence_nccl_torch_version(void);

// Version of the NCCL that is loaded, like 22809.
c10d_status credence_nccl_version(int32_t *out, char *err, size_t err_len);

typedef struct {
  const char *prefix;      // of the store's keys, the attempt's own
  int32_t rank;
  int32_t world_size;
  int64_t timeout_ms;
  int32_t device;          // of this rank, among those that the process sees
  uint8_t high_priority;   // of the stream of collectives
  const char *host_id;     // null, or NCCL_HOSTID: ranks with different ones are on different machines to NCCL
} credence_nccl_options;
// Gives `group` a second backend, for CUDA tensors, and makes its communicator. A collective: returns when all ranks
// have come.
c10d_status credence_nccl_attach(c10d_group *group, const c10d_store *store, const credence_nccl_options *options,
                                 char *err, size_t err_len);

#ifdef __cplusplus
}
#endif
