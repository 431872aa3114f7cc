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

// Raised with every change of this file, of guard.hpp, or of what the CUDA half relies on.
enum { C10D_ABI = 1 };

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
// Asks a backend that fails on a thread of its own whether it has: NCCL does, Gloo does not. Waits for nothing.
c10d_status c10d_group_check(const c10d_group *group, char *err, size_t err_len);
// Waits for what the group still does on GPUs, and ends it. Nothing but `_free` may follow. A collective.
c10d_status c10d_group_shutdown(c10d_group *group, char *err, size_t err_len);
// Ends what the group still does, without the other ranks. Nothing but `_free` may follow.
c10d_status c10d_group_abort(c10d_group *group, char *err, size_t err_len);
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

// ---- libtorch's settings, and devices (context.cpp)

// Version of libtorch that this was compiled for, like `2.11.0`.
const char *c10d_torch_version(void);
// 1 when kernels for CUDA tensors are registered.
int32_t c10d_has_cuda_kernels(void);
// Makes the CUDA context of the first device that this process sees; fails in libtorch's words when there is none.
c10d_status c10d_cuda_init(char *err, size_t err_len);

typedef struct {
  uint8_t tf32;           // matrix products and convolutions of floats may round to 10 bits of mantissa
  uint8_t benchmark;      // cuDNN tries its algorithms for each new shape
  uint8_t deterministic;  // an operation without a deterministic algorithm fails
} c10d_settings;
// Of the whole process.
c10d_status c10d_settings_set(c10d_settings settings, char *err, size_t err_len);
c10d_settings c10d_settings_get(void);

typedef int32_t c10d_device_type;
enum {
  C10D_CPU = 0,
  C10D_CUDA = 1,
};
// Element type of mixed precision; 0 for none.
typedef int32_t c10d_autocast;
enum {
  C10D_FULL = 0,
  C10D_BFLOAT16 = 1,
  C10D_FLOAT16 = 2,
};
// Sets the mixed precision of this thread for a type of device, and returns what it was, for the matching `_leave`. The
// copies of weights that libtorch keeps meanwhile are forgotten at the outermost `_leave`.
c10d_autocast c10d_autocast_enter(c10d_device_type device, c10d_autocast precision);
void c10d_autocast_leave(c10d_device_type device, c10d_autocast before);

typedef struct {
  int64_t allocated_peak;  // bytes of tensors, at most so far
  int64_t reserved_peak;   // bytes taken from the device, at most so far
  int64_t free;            // bytes of the device that nobody has taken
  int64_t total;           // bytes of the device
} c10d_memory;
c10d_status c10d_cuda_memory(int32_t device, c10d_memory *out, char *err, size_t err_len);
// Share of each GPU's memory that this process may take; before `c10d_cuda_init`.
c10d_status c10d_cuda_limit_memory(double share, char *err, size_t err_len);
c10d_status c10d_cuda_forget_peak(int32_t device, char *err, size_t err_len);

// Moves the elements of a tensor of four axes so that those of a pixel lie together; its shape stays. Other tensors
// are left alone.
c10d_status c10d_channels_last(c10d_tensor tensor, char *err, size_t err_len);

typedef struct {
  double lr;
  double momentum;
  double weight_decay;
  uint8_t nesterov;
  uint8_t is_first_step;
} c10d_sgd;
// A step of SGD on all parameters in one kernel, where they have the same device and element type. `momentum` has a
// buffer for each of them, or is null. `found_inf` is null or a scalar: where it is not 0, nothing happens.
c10d_status c10d_fused_sgd(const c10d_tensor *params, const c10d_tensor *grads, const c10d_tensor *momentum,
                           size_t length, c10d_sgd settings, c10d_tensor found_inf, char *err, size_t err_len);

// Of all tensors at once: sets them to zero; multiplies them with a scalar; writes the norm of all their elements to `out`, a
// scalar of their element type.
c10d_status c10d_fused_zero(const c10d_tensor *tensors, size_t length, char *err, size_t err_len);
c10d_status c10d_fused_multiply(const c10d_tensor *tensors, size_t length, c10d_tensor factor, char *err,
                                size_t err_len);
c10d_status c10d_fused_norm(const c10d_tensor *tensors, size_t length, c10d_tensor out, char *err, size_t err_len);

#ifdef __cplusplus
}
#endif
