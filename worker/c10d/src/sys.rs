//! `csrc/shim.h` and `csrc/cuda/shim_nccl.h`, line by line. Nothing is decided here.

use std::ffi::{c_char, c_void};

pub type Status = i32;
pub const OK: Status = 0;
pub const TIMEOUT: Status = 1;
pub const PEER_LOST: Status = 2;

pub const ABI: i32 = 1;

pub type Op = i32;
pub const SUM: Op = 0;
pub const AVG: Op = 1;
pub const MAX: Op = 2;

/// Opaque; see the header.
#[repr(C)]
pub struct Store {
    _opaque: [u8; 0],
}

/// Opaque; see the header.
#[repr(C)]
pub struct Group {
    _opaque: [u8; 0],
}

/// Opaque; see the header.
#[repr(C)]
pub struct Reducer {
    _opaque: [u8; 0],
}

/// A `torch::Tensor *`.
pub type Tensor = *mut c_void;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Settings {
    pub tf32: u8,
    pub benchmark: u8,
    pub deterministic: u8,
}

pub type DeviceType = i32;
pub const CPU: DeviceType = 0;
pub const CUDA: DeviceType = 1;

pub type Autocast = i32;
pub const FULL: Autocast = 0;
pub const BFLOAT16: Autocast = 1;
pub const FLOAT16: Autocast = 2;

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Memory {
    pub allocated_peak: i64,
    pub reserved_peak: i64,
    pub free: i64,
    pub total: i64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sgd {
    pub lr: f64,
    pub momentum: f64,
    pub weight_decay: f64,
    pub nesterov: u8,
    pub is_first_step: u8,
}

#[repr(C)]
pub struct NcclOptions {
    pub prefix: *const c_char,
    pub rank: i32,
    pub world_size: i32,
    pub timeout_ms: i64,
    pub device: i32,
    pub high_priority: u8,
    pub host_id: *const c_char,
}

/// Functions of `libcredence_nccl.so`, which is loaded where it is needed.
pub mod nccl {
    use super::{Group, NcclOptions, Status, Store};
    use std::ffi::c_char;

    pub type Abi = unsafe extern "C" fn() -> i32;
    pub type TorchVersion = unsafe extern "C" fn() -> *const c_char;
    pub type Version = unsafe extern "C" fn(*mut i32, *mut c_char, usize) -> Status;
    pub type Attach =
        unsafe extern "C" fn(*mut Group, *const Store, *const NcclOptions, *mut c_char, usize) -> Status;
}

unsafe extern "C" {
    pub fn c10d_store_host(
        listen_fd: i32,
        host: *const c_char,
        port: u16,
        timeout_ms: i64,
        out: *mut *mut Store,
        err: *mut c_char,
        err_len: usize,
    ) -> Status;
    pub fn c10d_store_connect(
        host: *const c_char,
        port: u16,
        timeout_ms: i64,
        out: *mut *mut Store,
        err: *mut c_char,
        err_len: usize,
    ) -> Status;
    pub fn c10d_store_free(store: *mut Store, err: *mut c_char, err_len: usize) -> Status;

    pub fn c10d_group_gloo(
        store: *const Store,
        prefix: *const c_char,
        rank: i32,
        world_size: i32,
        timeout_ms: i64,
        hostname: *const c_char,
        interface: *const c_char,
        out: *mut *mut Group,
        err: *mut c_char,
        err_len: usize,
    ) -> Status;
    pub fn c10d_group_check(group: *const Group, err: *mut c_char, err_len: usize) -> Status;
    pub fn c10d_group_shutdown(group: *mut Group, err: *mut c_char, err_len: usize) -> Status;
    pub fn c10d_group_abort(group: *mut Group, err: *mut c_char, err_len: usize) -> Status;
    pub fn c10d_group_free(group: *mut Group, err: *mut c_char, err_len: usize) -> Status;

    pub fn c10d_all_reduce(
        group: *const Group,
        tensor: Tensor,
        op: Op,
        err: *mut c_char,
        err_len: usize,
    ) -> Status;
    pub fn c10d_broadcast(
        group: *const Group,
        tensor: Tensor,
        root: i32,
        err: *mut c_char,
        err_len: usize,
    ) -> Status;
    pub fn c10d_barrier(group: *const Group, err: *mut c_char, err_len: usize) -> Status;
    pub fn c10d_all_gather(
        group: *const Group,
        tensor: Tensor,
        outputs: *const Tensor,
        outputs_len: usize,
        err: *mut c_char,
        err_len: usize,
    ) -> Status;

    pub fn c10d_reducer_new(
        group: *const Group,
        params: *const Tensor,
        params_len: usize,
        first_bucket_bytes: i64,
        bucket_bytes: i64,
        out: *mut *mut Reducer,
        err: *mut c_char,
        err_len: usize,
    ) -> Status;
    pub fn c10d_reducer_backward(
        reducer: *mut Reducer,
        loss: Tensor,
        err: *mut c_char,
        err_len: usize,
    ) -> Status;
    pub fn c10d_reducer_free(reducer: *mut Reducer, err: *mut c_char, err_len: usize) -> Status;

    pub fn c10d_torch_version() -> *const c_char;
    pub fn c10d_has_cuda_kernels() -> i32;
    pub fn c10d_cuda_init(err: *mut c_char, err_len: usize) -> Status;
    pub fn c10d_settings_set(settings: Settings, err: *mut c_char, err_len: usize) -> Status;
    pub fn c10d_settings_get() -> Settings;
    pub fn c10d_autocast_enter(device: DeviceType, precision: Autocast) -> Autocast;
    pub fn c10d_autocast_leave(device: DeviceType, before: Autocast);
    pub fn c10d_cuda_memory(device: i32, out: *mut Memory, err: *mut c_char, err_len: usize) -> Status;
    pub fn c10d_cuda_limit_memory(share: f64, err: *mut c_char, err_len: usize) -> Status;
    pub fn c10d_cuda_forget_peak(device: i32, err: *mut c_char, err_len: usize) -> Status;
    pub fn c10d_channels_last(tensor: Tensor, err: *mut c_char, err_len: usize) -> Status;
    pub fn c10d_fused_sgd(
        params: *const Tensor,
        grads: *const Tensor,
        momentum: *const Tensor,
        length: usize,
        settings: Sgd,
        found_inf: Tensor,
        err: *mut c_char,
        err_len: usize,
    ) -> Status;
    pub fn c10d_fused_zero(tensors: *const Tensor, length: usize, err: *mut c_char, err_len: usize)
    -> Status;
    pub fn c10d_fused_multiply(
        tensors: *const Tensor,
        length: usize,
        factor: Tensor,
        err: *mut c_char,
        err_len: usize,
    ) -> Status;
    pub fn c10d_fused_norm(
        tensors: *const Tensor,
        length: usize,
        out: Tensor,
        err: *mut c_char,
        err_len: usize,
    ) -> Status;
}
