//! Makes the executables of this crate find libtorch without `LD_LIBRARY_PATH`.
//!
//! First where the build found it, then in `../lib` beside the program, for a copy on another machine.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let lib = std::env::var("DEP_CREDENCE_C10D_LIBTORCH_LIB").expect("c10d tells where libtorch lies");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
    println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
}
