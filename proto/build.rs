//! Compiles the `.proto` with protox, which is written in Rust, so that nobody needs `protoc`.

use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/credence/v1/credence.proto"], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // The reflection service serves these bytes.
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().codec_path("crate::codec::SmallBuffers").compile_fds(descriptors)?;
    Ok(())
}
