//! `csrc/shim.h`, line by line. Nothing is decided here.

use std::ffi::{c_char, c_void};

pub type Status = i32;
pub const OK: Status = 0;
pub const TIMEOUT: Status = 1;
pub const PEER_LOST: Status = 2;

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
}
