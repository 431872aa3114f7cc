//! The wire: generated messages and services of `credence.v1`, and the conversions between them and [`common`].
//!
//! [`convert`] is the only module that sees both worlds. Prost types are used by this crate, the coordinator's
//! gRPC services and the sessions; decisions never see them.

mod codec;
pub mod convert;
pub mod status;
pub mod version;

/// Generated from `proto/credence/v1/credence.proto`.
#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::too_many_lines,
    reason = "generated; documented in the .proto"
)]
pub mod v1 {
    tonic::include_proto!("credence.v1");
}

/// Encoded descriptors, for the reflection service.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Bytes of a blob, log or artifact in one message of a stream.
pub const CHUNK_BYTES: usize = 256 * 1024;
