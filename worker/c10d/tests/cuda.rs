//! Loading of CUDA while the program runs: what is refused, in which words; and, where a PyTorch for CUDA is installed,
//! that it is really loaded. No GPU is needed for any of it.
//!
//! Stand-ins for NVIDIA's and PyTorch's libraries are compiled by the C++ compiler that this crate is built with.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use c10d::{
    CudaError, ErrorKind, GlooOptions, NcclError, NcclOptions, Network, ProcessGroup, Rank, Store, cuda,
};
use tch::{Device, Kind, Tensor};

/// Folder `torch/lib` of a PyTorch for CUDA, to run the tests that need one.
const INSTALLED: &str = "CREDENCE_TEST_CUDA";

/// `libcredence_nccl.so`, for those that need it.
const NCCL: &str = "CREDENCE_NCCL";

/// A folder `torch/lib` that says of which version it is.
fn installation(version: &str) -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("torch/lib");
    fs::create_dir_all(&folder).unwrap();
    let text = format!("from typing import Optional\n__version__ = '{version}'\ndebug = False\n");
    fs::write(root.path().join("torch/version.py"), text).unwrap();
    (root, folder)
}

/// Compiles a shared library from C++.
fn library(path: &Path, text: &str, arguments: &[&str]) {
    let source = path.with_extension("cpp");
    fs::write(&source, text).unwrap();
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let mut words = compiler.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    command.args(words).args(["-shared", "-fPIC", "-o"]).arg(path).arg(&source).args(arguments);
    assert!(command.status().unwrap().success());
}

#[test]
fn a_folder_without_the_libraries_is_refused_with_the_names_of_what_is_missing() {
    let (_root, folder) = installation("2.11.0+cu130");
    let error = cuda::load(&folder).unwrap_err().to_string();
    for name in ["no libc10_cuda.so", "no libtorch_cuda.so", "torch/lib", "PyTorch 2.11.0 for CUDA 13.0"] {
        assert!(error.contains(name), "{error}");
    }
    fs::write(folder.join("libc10_cuda.so"), "").unwrap();
    let error = cuda::load(&folder).unwrap_err();
    assert!(matches!(error, CudaError::Missing { missing, .. } if missing == ["libtorch_cuda.so"]));
}

#[test]
fn another_version_of_pytorch_or_of_cuda_is_refused_before_anything_is_loaded() {
    for version in ["2.10.0+cu130", "2.11.0+cu128", "2.11.0+cpu", "2.12.0"] {
        let (root, folder) = installation(version);
        for name in ["libc10_cuda.so", "libtorch_cuda.so"] {
            // Would leave a trace if it were loaded.
            let trace = root.path().join("loaded");
            let text = format!(
                "#include <cstdio>\nstatic int x = []{{ std::fclose(std::fopen(\"{}\", \"w\")); return 1; }}();",
                trace.display()
            );
            library(&folder.join(name), &text, &[]);
        }
        let error = cuda::load(&folder).unwrap_err();
        assert!(matches!(&error, CudaError::Version { found, .. } if found == version), "{error}");
        assert!(error.to_string().contains(version), "{error}");
        assert!(!root.path().join("loaded").exists());
    }
}

#[test]
fn a_file_that_is_no_library_is_named_with_the_loaders_words() {
    let (_root, folder) = installation("2.11.0+cu130");
    for name in ["libc10_cuda.so", "libtorch_cuda.so"] {
        fs::write(
            folder.join(name),
            "no library at all, but long enough for the header of one of ELF's files",
        )
        .unwrap();
    }
    let error = cuda::load(&folder).unwrap_err();
    let CudaError::Refused { library, message } = &error else { panic!("{error}") };
    assert_eq!(*library, folder.join("libc10_cuda.so"));
    assert!(message.contains("libc10_cuda.so"), "{message}");
}

#[test]
fn a_library_that_an_installation_lacks_is_named() {
    let (root, folder) = installation("2.11.0+cu130");
    library(&folder.join("libc10_cuda.so"), "int c10_cuda_stub;", &[]);
    let needed = root.path().join("libcudnn_stub.so.9");
    library(&needed, "int cudnn_stub;", &["-Wl,-soname,libcudnn_stub.so.9"]);
    library(
        &folder.join("libtorch_cuda.so"),
        "extern int cudnn_stub; int *x = &cudnn_stub;",
        &[needed.to_str().unwrap()],
    );
    fs::remove_file(&needed).unwrap();
    let error = cuda::load(&folder).unwrap_err();
    let CudaError::Refused { library, message } = &error else { panic!("{error}") };
    assert_eq!(*library, folder.join("libtorch_cuda.so"));
    assert!(message.contains("libcudnn_stub.so.9"), "{message}");
}

#[test]
fn libraries_that_bring_no_kernels_are_not_taken_for_cuda() {
    let (_root, folder) = installation("2.11.0+cu130");
    library(&folder.join("libc10_cuda.so"), "int no_c10_cuda;", &[]);
    library(&folder.join("libtorch_cuda.so"), "int no_torch_cuda;", &[]);
    assert!(matches!(cuda::load(&folder), Err(CudaError::NoKernels { .. })));
    assert!(!cuda::is_loaded());
}

#[test]
fn without_cuda_there_is_no_device_and_no_memory_of_one() {
    assert!(matches!(cuda::initialise(), Err(CudaError::NoDevice { .. })));
    assert!(cuda::memory(0).is_err());
    assert!(cuda::forget_peak(0).is_err());
}

/// In a process of its own, because libraries stay loaded.
fn alone(test: &str) {
    if std::env::var_os(INSTALLED).is_none() {
        panic!("{INSTALLED} names no folder `torch/lib` of a PyTorch 2.11.0 for CUDA 13.0");
    }
    let own = std::env::current_exe().unwrap();
    let status =
        Command::new(own).args(["--exact", test, "--include-ignored"]).env("CREDENCE_ALONE", "1").status();
    assert!(status.unwrap().success());
}

fn is_alone() -> bool {
    std::env::var_os("CREDENCE_ALONE").is_some()
}

fn installed() -> PathBuf {
    PathBuf::from(std::env::var_os(INSTALLED).unwrap())
}

#[test]
#[ignore = "needs an installed PyTorch for CUDA, but no GPU: CREDENCE_TEST_CUDA=…/torch/lib"]
fn an_installed_pytorch_brings_kernels_for_cuda() {
    if !is_alone() {
        return alone("an_installed_pytorch_brings_kernels_for_cuda");
    }
    assert!(!cuda::is_loaded());
    cuda::load(&installed()).unwrap();
    assert!(cuda::is_loaded());
    cuda::limit_memory(0.5).unwrap();
    assert!(cuda::limit_memory(2.0).unwrap_err().to_string().contains("per_process_memory_fraction"));
    // Once is enough.
    cuda::load(Path::new("/no/such/folder")).unwrap();
    // The CPU half is still the one that this program was linked with, and works.
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut cpu: Vec<&str> = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .filter(|path| path.ends_with("/libtorch_cpu.so"))
        .collect();
    cpu.dedup();
    assert_eq!(cpu.len(), 1, "{cpu:?}");
    let sum = (Tensor::from_slice(&[1.0_f32, 2.0]) + 1.0).sum(Kind::Float);
    assert_eq!(sum.double_value(&[]), 5.0);
    match tch::Cuda::device_count() {
        0 => {
            let error = cuda::initialise().unwrap_err().to_string();
            assert!(error.contains("no GPU can be used"), "{error}");
            eprintln!("{error}");
            let refused =
                Tensor::from_slice(&[1.0_f32]).f_to_device(Device::Cuda(0)).unwrap_err().to_string();
            assert!(refused.contains("NVIDIA driver") || refused.contains("No CUDA GPUs"), "{refused}");
        }
        count => {
            cuda::initialise().unwrap();
            let sum = (Tensor::from_slice(&[1.0_f32, 2.0]).to_device(Device::Cuda(0)) + 1.0).sum(Kind::Float);
            assert_eq!(sum.double_value(&[]), 5.0);
            eprintln!("{count} GPUs");
        }
    }
}

#[test]
#[ignore = "needs an installed PyTorch for CUDA, but no GPU: CREDENCE_TEST_CUDA=…/torch/lib"]
fn an_installed_pytorch_without_cudnn_is_refused_by_that_name() {
    if !is_alone() {
        return alone("an_installed_pytorch_without_cudnn_is_refused_by_that_name");
    }
    // Links to the libraries in another folder, from which the wheels of NVIDIA are not found.
    let (_root, folder) = installation("2.11.0+cu130");
    for name in ["libc10_cuda.so", "libtorch_cuda.so", "libtorch_nvshmem.so"] {
        std::os::unix::fs::symlink(installed().join(name), folder.join(name)).unwrap();
    }
    let error = cuda::load(&folder).unwrap_err().to_string();
    eprintln!("{error}");
    assert!(
        error.contains("libtorch_cuda.so") && error.contains("cannot open shared object file"),
        "{error}"
    );
}

#[test]
#[ignore = "needs an installed PyTorch for CUDA and libcredence_nccl.so, but no GPU: CREDENCE_TEST_CUDA, CREDENCE_NCCL"]
fn nccl_is_loaded_with_an_installed_pytorch() {
    if !is_alone() {
        return alone("nccl_is_loaded_with_an_installed_pytorch");
    }
    let library = PathBuf::from(std::env::var_os(NCCL).unwrap());
    cuda::load(&installed()).unwrap();
    assert_eq!(c10d::nccl_version(&library).unwrap(), (2, 28, 9));

    // A library of another ABI is refused, and told by both.
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("libcredence_nccl.so");
    let text = "extern \"C\" int credence_nccl_abi() { return 77; }\n\
                extern \"C\" const char *credence_nccl_torch_version() { return \"2.11.0\"; }";
    self::library(&other, text, &[]);
    let error = c10d::nccl_version(&other).unwrap_err();
    assert!(matches!(error, ErrorKind::Nccl(NcclError::Version { .. })), "{error}");
    assert!(error.to_string().contains("ABI 77 of libtorch 2.11.0"), "{error}");
    let missing = c10d::nccl_version(&folder.path().join("libnothing.so")).unwrap_err();
    assert!(matches!(missing, ErrorKind::Nccl(NcclError::Refused { .. })), "{missing}");

    // Without a GPU the group says so, in libtorch's words; an exception of C++ has then crossed three libraries.
    if tch::Cuda::device_count() == 0 {
        let rank = Rank::alone();
        let timeout = Duration::from_secs(20);
        let store = Store::host(rank, "127.0.0.1:0".parse().unwrap(), timeout).unwrap();
        let network = Network::Host("127.0.0.1".to_owned());
        let gloo = GlooOptions { store: &store, prefix: "a1", rank, timeout, network };
        let nccl = NcclOptions { library, device: 0, high_priority: true, host_id: None };
        let error = ProcessGroup::nccl(&gloo, &nccl).err().unwrap().to_string();
        eprintln!("{error}");
        assert!(error.contains("no GPUs found"), "{error}");
    }
}
