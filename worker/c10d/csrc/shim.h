// C ABI over the c10d part of libtorch: store, process group, collectives, Reducer.
//
// Rules of every function here:
// - no C++ exception leaves it; the result is a status, and the message of a failure goes to `err`,
//   a buffer of the caller with room for `err_len` bytes, always terminated by a zero;
// - a handle that it returns through `out` belongs to the caller until the matching `_free`;
// - a tensor is a `torch::Tensor *` of the caller, which stays the caller's.
// `src/sys.rs` mirrors this file line by line.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t c10d_status;
enum {
  C10D_OK = 0,
  C10D_TIMEOUT = 1,    // a peer did not take part in time
  C10D_PEER_LOST = 2,  // the connection to a peer or to the store broke
  C10D_OTHER = 3,
};

typedef int32_t c10d_reduce_op;
enum {
  C10D_SUM = 0,
  C10D_AVG = 1,
  C10D_MAX = 2,
};

typedef struct c10d_store c10d_store;
typedef struct c10d_group c10d_group;
typedef struct c10d_reducer c10d_reducer;
typedef void *c10d_tensor;

// Serves a TCPStore on the listening socket `listen_fd`, which it takes over, and connects to it as `host`.
c10d_status c10d_store_host(int32_t listen_fd, const char *host, uint16_t port, int64_t timeout_ms,
                            c10d_store **out, char *err, size_t err_len);
c10d_status c10d_store_connect(const char *host, uint16_t port, int64_t timeout_ms, c10d_store **out, char *err,
                               size_t err_len);
c10d_status c10d_store_free(c10d_store *store, char *err, size_t err_len);

// Joins a Gloo process group by way of the keys under `prefix`. Exactly one of `hostname` (a name or an
// address of this machine) and `interface` is given; the other is null.
c10d_status c10d_group_gloo(const c10d_store *store, const char *prefix, int32_t rank, int32_t world_size,
                            int64_t timeout_ms, const char *hostname, const char *interface, c10d_group **out,
                            char *err, size_t err_len);
c10d_status c10d_group_free(c10d_group *group, char *err, size_t err_len);

// Collectives; they return when this rank's part is done. The first three overwrite `tensor`.
c10d_status c10d_all_reduce(const c10d_group *group, c10d_tensor tensor, c10d_reduce_op op, char *err,
                            size_t err_len);
c10d_status c10d_broadcast(const c10d_group *group, c10d_tensor tensor, int32_t root, char *err, size_t err_len);
c10d_status c10d_barrier(const c10d_group *group, char *err, size_t err_len);
// `outputs` has one tensor for each rank.
c10d_status c10d_all_gather(const c10d_group *group, c10d_tensor tensor, const c10d_tensor *outputs,
                            size_t outputs_len, char *err, size_t err_len);

// Makes a Reducer for `params`, and fixes its buckets. A collective: every rank calls it at the same point.
c10d_status c10d_reducer_new(const c10d_group *group, const c10d_tensor *params, size_t params_len,
                             int64_t first_bucket_bytes, int64_t bucket_bytes, c10d_reducer **out, char *err,
                             size_t err_len);
// Backward from `loss`; returns when the gradients of the params are the averages over the ranks.
c10d_status c10d_reducer_backward(c10d_reducer *reducer, c10d_tensor loss, char *err, size_t err_len);
c10d_status c10d_reducer_free(c10d_reducer *reducer, char *err, size_t err_len);

#ifdef __cplusplus
}
#endif
