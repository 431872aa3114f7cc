//! Compiles the C ABI shim, and tells where libtorch lies.
//!
//! Link arguments do not pass from a library to the executables that use it, so a crate that makes
//! executables emits its own from `DEP_CREDENCE_C10D_LIBTORCH_LIB` (see the build script of `trainer`).

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    for path in ["build.rs", "csrc"] {
        println!("cargo::rerun-if-changed={path}");
    }
    // Read like torch-sys does, so that both compile against the same headers.
    println!("cargo::rerun-if-env-changed=LIBTORCH_INCLUDE");
    let lib = env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys tells where it found libtorch");
    let root = env::var_os("LIBTORCH_INCLUDE").map(PathBuf::from);
    let root = root.or_else(|| Path::new(&lib).parent().map(Path::to_path_buf));
    let include = root.expect("libtorch's lib/ has a parent").join("include");

    let mut shim = cc::Build::new();
    shim.cpp(true).std("c++17").files(["csrc/shim.cpp", "csrc/context.cpp"]).include("csrc");
    // As system headers, so that only our own code is warned about.
    for folder in [include.clone(), include.join("torch/csrc/api/include")] {
        shim.flag("-isystem").flag(folder);
    }
    shim.define("USE_C10D_GLOO", None).define("USE_DISTRIBUTED", None);
    shim.define("_GLIBCXX_USE_CXX11_ABI", "1");
    shim.compile("credence_c10d_shim");

    println!("cargo::metadata=libtorch_lib={lib}");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
}
