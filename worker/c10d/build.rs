//! Tells this crate's tests, and by metadata every crate above it, where libtorch lies.
//!
//! Link arguments do not pass from a library to the executables that use it, so a crate that makes
//! executables emits its own from `DEP_CREDENCE_C10D_LIBTORCH_LIB` (see the build script of `trainer`).

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let lib = env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys tells where it found libtorch");
    println!("cargo::metadata=libtorch_lib={lib}");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
}
