//! The pinned Python wheels that carry libtorch, read from the requirement files that pip reads too.
//!
//! Decides which files are the right ones (by SHA-256) and what of each is needed. Downloads nothing.

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

const X86_64: &str = include_str!("../libtorch/x86_64.txt");
const AARCH64: &str = include_str!("../libtorch/aarch64.txt");
const CUDA_X86_64: &str = include_str!("../libtorch/cuda-x86_64.txt");
const CUDA_AARCH64: &str = include_str!("../libtorch/cuda-aarch64.txt");

/// Libraries of the torch wheel that a CPU program does not load.
///
/// `libtorch.so` is among them because it pulls in `libtorch_cuda.so`; a linker script takes its place.
const UNNEEDED: [&str; 9] = [
    "libc10_cuda.so",
    "libcaffe2_nvrtc.so",
    "libshm.so",
    "libtorch.so",
    "libtorch_cuda.so",
    "libtorch_cuda_linalg.so",
    "libtorch_global_deps.so",
    "libtorch_nvshmem.so",
    "libtorch_python.so",
];

/// What is pinned for one machine architecture.
#[derive(Debug, PartialEq, Eq)]
pub struct Pins {
    /// What they carry.
    pub content: Content,
    /// The requirement file, as pip takes it.
    pub requirements: &'static str,
    pub wheels: Vec<Wheel>,
    /// Platform tags under which the wheels are published.
    pub platforms: Vec<String>,
}

/// What is taken from wheels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// libtorch's CPU half, and what it needs.
    Libtorch,
    /// The headers of CUDA.
    CudaHeaders,
}

impl Content {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Libtorch => "libtorch",
            Self::CudaHeaders => "CUDA's headers",
        }
    }

    /// Bytes of the unpacked folder, with some room.
    pub fn unpacked_bytes(self) -> u64 {
        match self {
            // 500 MB on x86_64.
            Self::Libtorch => 600_000_000,
            Self::CudaHeaders => 20_000_000,
        }
    }
}

/// One pinned wheel.
#[derive(Debug, PartialEq, Eq)]
pub struct Wheel {
    pub package: String,
    pub version: String,
    /// Lower-case hexadecimal SHA-256 of the file.
    pub sha256: String,
    /// Size of the file.
    pub bytes: u64,
}

impl Pins {
    /// Pins for the machine that this program runs on.
    pub fn of_this_machine(content: Content) -> anyhow::Result<Self> {
        match (std::env::consts::OS, std::env::consts::ARCH, content) {
            ("linux", "x86_64", Content::Libtorch) => Self::parse(content, X86_64, "x86_64"),
            ("linux", "aarch64", Content::Libtorch) => Self::parse(content, AARCH64, "aarch64"),
            ("linux", "x86_64", Content::CudaHeaders) => Self::parse(content, CUDA_X86_64, "x86_64"),
            ("linux", "aarch64", Content::CudaHeaders) => Self::parse(content, CUDA_AARCH64, "aarch64"),
            (os, arch, Content::CudaHeaders) => bail!("there is no PyTorch for CUDA on {os} on {arch}"),
            (os, arch, Content::Libtorch) => bail!(
                "libtorch is provided for Linux on x86_64 and aarch64, and this is {os} on {arch}: \
                 set LIBTORCH to the folder of a libtorch {} of your own",
                libtorch_version()?
            ),
        }
    }

    fn parse(content: Content, requirements: &'static str, arch: &str) -> anyhow::Result<Self> {
        let mut wheels = Vec::new();
        let mut bytes = None;
        for line in requirements.lines().filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix("# ") {
                bytes = comment.split_once(" bytes: ").and_then(|(size, _)| size.parse().ok());
            } else {
                let wheel = Wheel::parse(line, bytes.take());
                wheels.push(wheel.with_context(|| format!("pinned wheel `{line}`"))?);
            }
        }
        let tags = ["manylinux_2_28", "manylinux_2_25", "manylinux_2_17", "manylinux2014"];
        let platforms = tags.iter().map(|tag| format!("{tag}_{arch}")).collect();
        Ok(Self { content, requirements, wheels, platforms })
    }

    /// Size of all wheels together.
    pub fn bytes(&self) -> u64 {
        self.wheels.iter().map(|wheel| wheel.bytes).sum()
    }
}

/// The libtorch version that the pins carry, and that the `tch` crate is written for.
pub fn libtorch_version() -> anyhow::Result<String> {
    let pins = Pins::parse(Content::Libtorch, X86_64, "x86_64")?;
    let torch = pins.wheels.into_iter().find(|wheel| wheel.package == "torch");
    Ok(torch.context("no torch wheel is pinned")?.version)
}

impl Wheel {
    fn parse(line: &str, bytes: Option<u64>) -> anyhow::Result<Self> {
        let (requirement, sha256) = line.split_once(" --hash=sha256:").context("it has no SHA-256")?;
        let (package, version) = requirement.split_once("==").context("it has no exact version")?;
        ensure!(
            sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
            "its SHA-256 is not 64 lower-case hexadecimal digits"
        );
        Ok(Self {
            package: package.to_owned(),
            version: version.to_owned(),
            sha256: sha256.to_owned(),
            bytes: bytes.context("no comment above it gives its size")?,
        })
    }

    /// Whether a file name is that of this package and version.
    pub fn owns(&self, file_name: &str) -> bool {
        let stem = format!("{}-{}-", self.package.replace('-', "_"), self.version);
        file_name.starts_with(&stem) && file_name.ends_with(".whl")
    }

    /// Whether the file at `path` has the pinned digest.
    pub fn matches(&self, path: &Path) -> anyhow::Result<bool> {
        let read = || -> io::Result<String> {
            let mut hasher = Sha256::new();
            io::copy(&mut File::open(path)?, &mut hasher)?;
            Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
        };
        let digest = read().with_context(|| format!("cannot read `{}`", path.display()))?;
        Ok(digest == self.sha256)
    }

    /// Where an entry of the wheel goes, relative to the folder of `content`; `None` when it is not needed.
    pub fn destination(&self, content: Content, entry: &str) -> Option<String> {
        if let Some((folder, licence)) = entry.split_once(".dist-info/licenses/") {
            return Some(format!("licenses/{folder}/{licence}"));
        }
        if content == Content::CudaHeaders {
            // The C++ library for kernels is not needed, but for what tells compilers apart, which lies beside it.
            let needed = |path: &&str| path.starts_with("include/") && !path.starts_with("include/cccl/");
            return entry.strip_prefix("nvidia/cu13/").filter(needed).map(str::to_owned);
        }
        if let Some(header) = entry.strip_prefix("torch/include/") {
            return Some(format!("include/{header}"));
        }
        if let Some(library) = entry.strip_prefix("torch/lib/") {
            let needed = library.contains(".so") && !UNNEEDED.iter().any(|name| soname(library) == *name);
            return needed.then(|| format!("lib/{library}"));
        }
        let library = entry.strip_prefix("nvidia/cu13/lib/")?;
        ["libcudart.so", "libcupti.so"].contains(&soname(library)).then(|| format!("lib/{library}"))
    }
}

/// Library name without the version after `.so`.
fn soname(library: &str) -> &str {
    match library.find(".so") {
        Some(at) => &library[..at + ".so".len()],
        None => library,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wheel(package: &str) -> Wheel {
        let pins = Pins::parse(Content::Libtorch, X86_64, "x86_64").unwrap();
        pins.wheels.into_iter().find(|wheel| wheel.package == package).unwrap()
    }

    #[test]
    fn both_requirement_files_pin_the_same_packages_and_versions() {
        let named = |content, text, arch| -> Vec<(String, String)> {
            let pins = Pins::parse(content, text, arch).unwrap();
            pins.wheels.into_iter().map(|wheel| (wheel.package, wheel.version)).collect()
        };
        let libtorch = named(Content::Libtorch, X86_64, "x86_64");
        assert_eq!(libtorch, named(Content::Libtorch, AARCH64, "aarch64"));
        assert_eq!(libtorch.len(), 3);
        let headers = named(Content::CudaHeaders, CUDA_X86_64, "x86_64");
        assert_eq!(headers, named(Content::CudaHeaders, CUDA_AARCH64, "aarch64"));
        // The headers are those of the CUDA that libtorch is linked with.
        assert!(libtorch.contains(&headers[0]), "{headers:?}");
    }

    #[test]
    fn a_requirement_without_digest_size_or_exact_version_is_refused() {
        let digest = "0".repeat(64);
        assert!(Wheel::parse(&format!("torch==2.11.0 --hash=sha256:{digest}"), Some(1)).is_ok());
        assert!(Wheel::parse(&format!("torch==2.11.0 --hash=sha256:{digest}"), None).is_err());
        assert!(Wheel::parse(&format!("torch>=2.11.0 --hash=sha256:{digest}"), Some(1)).is_err());
        assert!(Wheel::parse("torch==2.11.0", Some(1)).is_err());
        assert!(Wheel::parse("torch==2.11.0 --hash=sha256:00", Some(1)).is_err());
    }

    #[test]
    fn a_file_name_belongs_to_its_package_and_version_only() {
        let cupti = wheel("nvidia-cuda-cupti");
        assert!(cupti.owns("nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl"));
        assert!(!cupti.owns("nvidia_cuda_cupti-13.0.48-py3-none-manylinux_2_25_x86_64.whl"));
        assert!(!cupti.owns("nvidia_cuda_runtime-13.0.85-py3-none-manylinux_2_25_x86_64.whl"));
    }

    #[test]
    fn only_what_a_cpu_program_needs_is_taken_from_a_wheel() {
        let torch = wheel("torch");
        let kept = |entry| torch.destination(Content::Libtorch, entry);
        assert_eq!(kept("torch/lib/libtorch_cpu.so").as_deref(), Some("lib/libtorch_cpu.so"));
        assert_eq!(kept("torch/lib/libgomp.so.1").as_deref(), Some("lib/libgomp.so.1"));
        assert_eq!(kept("torch/include/c10/core/Device.h").as_deref(), Some("include/c10/core/Device.h"));
        assert_eq!(kept("torch/lib/libtorch_cuda.so"), None);
        assert_eq!(kept("torch/lib/libtorch.so"), None);
        assert_eq!(kept("torch/nn/modules/linear.py"), None);
        let cupti = wheel("nvidia-cuda-cupti");
        assert_eq!(
            cupti.destination(Content::Libtorch, "nvidia/cu13/lib/libcupti.so.13").as_deref(),
            Some("lib/libcupti.so.13")
        );
        assert_eq!(cupti.destination(Content::Libtorch, "nvidia/cu13/lib/libnvperf_host.so"), None);
        let runtime = wheel("nvidia-cuda-runtime");
        let header = |entry| runtime.destination(Content::CudaHeaders, entry);
        assert_eq!(
            header("nvidia/cu13/include/crt/host_config.h").as_deref(),
            Some("include/crt/host_config.h")
        );
        assert_eq!(header("nvidia/cu13/include/nv/target").as_deref(), Some("include/nv/target"));
        assert_eq!(header("nvidia/cu13/include/cccl/cuda/std/array"), None);
        assert_eq!(header("nvidia/cu13/lib/libcudart.so.13"), None);
        assert_eq!(runtime.destination(Content::Libtorch, "nvidia/cu13/include/cuda.h"), None);
    }

    #[test]
    fn a_changed_byte_changes_the_verdict_on_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.whl");
        std::fs::write(&path, b"abc").unwrap();
        let mut torch = wheel("torch");
        torch.sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned();
        assert!(torch.matches(&path).unwrap());
        std::fs::write(&path, b"abd").unwrap();
        assert!(!torch.matches(&path).unwrap());
    }
}
