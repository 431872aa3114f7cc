use std::collections::BTreeMap;

use super::elf::tests::library;
use super::*;

const RPATH: &str = "$ORIGIN/../../nvidia/cu13/lib:$ORIGIN/../../nvidia/nccl/lib:$ORIGIN";

/// A Python environment with a PyTorch of some version, made of libraries that do nothing.
struct Python(tempfile::TempDir);

impl Python {
    fn new(version: &str) -> Self {
        let python = Self(tempfile::tempdir().unwrap());
        python.text("torch/version.py", &format!("debug = False\n__version__ = '{version}'\n"));
        let cuda = ["libc10_cuda.so", "libcudart.so.13", "libnccl.so.2", "libtorch_cpu.so", "libc.so.6"];
        python.library("torch/lib/libtorch_cuda.so", &cuda, RPATH);
        python.library("torch/lib/libc10_cuda.so", &["libcudart.so.13"], RPATH);
        python.library(
            "torch/lib/libtorch_cuda_linalg.so",
            &["libtorch_cuda.so", "libcusolver.so.12"],
            RPATH,
        );
        python.library("nvidia/cu13/lib/libcudart.so.13", &[], "");
        // As in the packages: it says nothing of the folder of what it needs.
        python.library("nvidia/cu13/lib/libcusolver.so.12", &["libnvJitLink.so.13"], "");
        python.library("nvidia/cu13/lib/libnvJitLink.so.13", &[], "");
        python.library("nvidia/nccl/lib/libnccl.so.2", &[], "");
        python.text("nvidia_nccl_cu13-2.28.9.dist-info/METADATA", "");
        python
    }

    fn packages(&self) -> PathBuf {
        self.0.path().join("lib/python3.12/site-packages")
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.packages().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn text(&self, path: &str, text: &str) {
        self.write(path, text.as_bytes());
    }

    fn library(&self, path: &str, needed: &[&str], rpath: &str) {
        self.write(path, &library(needed, rpath));
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.packages().join(path)).unwrap();
    }

    fn lib(&self) -> PathBuf {
        self.packages().join("torch/lib")
    }

    fn prefix(&self) -> &Path {
        self.0.path()
    }

    fn flaw(&self) -> Flaw {
        let mut error = find(Some(self.prefix()), |_| None).unwrap_err();
        error.rejected.remove(0).flaw
    }
}

fn variables(list: &[(&str, &Path)]) -> impl Fn(&str) -> Option<OsString> {
    let map: BTreeMap<_, _> =
        list.iter().map(|(name, path)| ((*name).to_owned(), path.as_os_str().to_owned())).collect();
    move |name| map.get(name).cloned()
}

#[test]
fn a_whole_installation_is_found_by_each_folder_that_a_user_may_name() {
    let python = Python::new(WANTED);
    for folder in
        [python.prefix().to_owned(), python.packages(), python.packages().join("torch"), python.lib()]
    {
        let found =
            find(Some(&folder), |_| None).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        assert_eq!(found.lib, python.lib());
        assert_eq!(found.version, WANTED);
        assert!(found.nccl.unwrap().ends_with("nvidia/nccl/lib/libnccl.so.2"));
        assert_eq!(found.nccl_version.as_deref(), Some("2.28.9"));
    }
}

#[test]
fn what_is_named_is_preferred_and_then_the_active_environment() {
    let [named, variable, venv, conda] = [(); 4].map(|()| Python::new(WANTED));
    let all =
        [(VARIABLE, variable.prefix()), ("VIRTUAL_ENV", venv.prefix()), ("CONDA_PREFIX", conda.prefix())];
    assert_eq!(find(Some(named.prefix()), variables(&all)).unwrap().lib, named.lib());
    assert_eq!(find(None, variables(&all)).unwrap().lib, variable.lib());
    assert_eq!(find(None, variables(&all[1..])).unwrap().lib, venv.lib());
    assert_eq!(find(None, variables(&all[2..])).unwrap().lib, conda.lib());
}

#[test]
fn the_environment_of_python_on_the_path_is_found() {
    let python = Python::new(WANTED);
    let bin = python.prefix().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("python3"), "").unwrap();
    assert_eq!(find(None, variables(&[("PATH", &bin)])).unwrap().lib, python.lib());
}

#[test]
fn an_environment_that_does_not_fit_is_passed_over_and_one_that_is_named_is_not() {
    let [old, good] = ["2.10.0+cu130", WANTED].map(Python::new);
    let both = [("VIRTUAL_ENV", old.prefix()), ("CONDA_PREFIX", good.prefix())];
    assert_eq!(find(None, variables(&both)).unwrap().lib, good.lib());
    let named = [(VARIABLE, old.prefix()), ("CONDA_PREFIX", good.prefix())];
    let error = find(None, variables(&named)).unwrap_err();
    assert_eq!(error.rejected.len(), 1);
    assert_eq!(error.rejected[0].flaw, Flaw::Version(Some("2.10.0+cu130".to_owned())));
    let text = error.to_string();
    assert!(text.contains("it is PyTorch 2.10.0+cu130; 2.11.0+cu130 is needed"), "{text}");
}

#[test]
fn each_library_that_is_missing_is_named_with_who_needs_it() {
    let python = Python::new(WANTED);
    python.remove("nvidia/nccl/lib/libnccl.so.2");
    python.remove("nvidia/cu13/lib/libnvJitLink.so.13");
    let names =
        ["libnccl.so.2 (needed by libtorch_cuda.so)", "libnvJitLink.so.13 (needed by libcusolver.so.12)"];
    assert_eq!(python.flaw(), Flaw::Partial(names.map(str::to_owned).to_vec()));
}

#[test]
fn a_library_that_is_cut_short_is_named() {
    let python = Python::new(WANTED);
    python.write("torch/lib/libc10_cuda.so", &library(&[], "")[..100]);
    let Flaw::Partial(names) = python.flaw() else { panic!("{:?}", python.flaw()) };
    assert_eq!(names.len(), 1);
    assert!(names[0].starts_with("libc10_cuda.so (needed by libtorch_cuda.so): damaged"), "{names:?}");
}

#[test]
fn a_folder_of_the_loader_makes_up_for_a_package() {
    let python = Python::new(WANTED);
    python.remove("nvidia/nccl/lib/libnccl.so.2");
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("libnccl.so.2.30.1"), library(&[], "")).unwrap();
    std::os::unix::fs::symlink("libnccl.so.2.30.1", other.path().join("libnccl.so.2")).unwrap();
    let found = find(Some(python.prefix()), variables(&[("LD_LIBRARY_PATH", other.path())])).unwrap();
    assert_eq!(found.nccl, Some(other.path().join("libnccl.so.2")));
    assert_eq!(found.nccl_version.as_deref(), Some("2.30.1"));
}

#[test]
fn a_pytorch_for_processors_only_and_nothing_at_all_are_told_apart() {
    let python = Python::new("2.11.0+cpu");
    python.remove("torch/lib/libtorch_cuda.so");
    let error = find(None, variables(&[("VIRTUAL_ENV", python.prefix())])).unwrap_err();
    assert_eq!(error.rejected[0].flaw, Flaw::Absent);
    let nothing = find(None, |_| None).unwrap_err();
    assert!(nothing.rejected.is_empty());
    let text = nothing.to_string();
    assert!(text.contains("pip install torch==2.11.0") && text.contains(VARIABLE), "{text}");
}

#[test]
fn a_folder_without_a_version_is_refused_and_the_layout_without_python_is_known() {
    let python = Python::new(WANTED);
    python.remove("torch/version.py");
    assert_eq!(python.flaw(), Flaw::Version(None));
    python.text("torch/build-version", "2.11.0+cu130\n");
    assert_eq!(find(Some(python.prefix()), |_| None).unwrap().version, WANTED);
}
