//! `cargo xtask setup --cuda`: compiles `libcredence_nccl.so`, the one part of Credence that CUDA's headers are needed for.
//!
//! Decides what it is compiled from, and when it is compiled again. No CUDA has to be installed: the headers come from pinned
//! wheels, and what they refer to is found on the GPU node, in its PyTorch. Whether it will be found there is checked here,
//! against a list: a library with one name too many would be compiled without a word, and refused at the first launch.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

use crate::wheels::{Content, Pins};
use crate::{fetch, prerequisites, process, setup};

/// Name of the library, as trainers look for it.
pub const LIBRARY: &str = "libcredence_nccl.so";

/// The sources, relative to the workspace.
const SOURCES: &str = "worker/c10d/csrc";

/// What the library may leave to PyTorch's CUDA libraries.
const ALLOWED: &str = include_str!("../../worker/c10d/csrc/cuda/symbols.txt");

/// Macros of the build, those that `worker/c10d/build.rs` has among them.
const MACROS: [&str; 4] = ["USE_C10D_GLOO", "USE_C10D_NCCL", "USE_DISTRIBUTED", "_GLIBCXX_USE_CXX11_ABI=1"];

/// Makes the library, unless it is there and of these sources, puts it beside the programs, and returns its path.
pub fn provide(workspace: &Path) -> anyhow::Result<PathBuf> {
    let libtorch = setup::libtorch(workspace)?.context(
        "NCCL's library is compiled with the libtorch that LIBTORCH names; unset LIBTORCH_USE_PYTORCH",
    )?;
    let folder = workspace.join(".libtorch-cuda");
    headers(workspace, &folder)?;
    let library = folder.join("lib").join(LIBRARY);
    let stamp = folder.join("lib/made-of");
    let sources = digest(&workspace.join(SOURCES), &libtorch)?;
    if !library.is_file() || fs::read_to_string(&stamp).ok().as_ref() != Some(&sources) {
        eprintln!("compiling {LIBRARY}; this takes half a minute");
        compile(workspace, &libtorch, &folder.join("include"), &library)?;
        fs::write(&stamp, sources).with_context(|| format!("cannot write `{}`", stamp.display()))?;
    }
    for programs in process::program_folders()? {
        let copy = programs.join(LIBRARY);
        fs::create_dir_all(&programs).with_context(|| format!("cannot create `{}`", programs.display()))?;
        // Under another name first: a trainer may have the old one open.
        let partial = programs.join(format!(".{LIBRARY}.partial"));
        fs::copy(&library, &partial)
            .and_then(|_| fs::rename(&partial, &copy))
            .with_context(|| format!("cannot write `{}`", copy.display()))?;
    }
    eprintln!("{LIBRARY} is in `{}`, and beside the programs", folder.join("lib").display());
    Ok(library)
}

/// Fills `folder/include` from the pinned wheels unless that was done before.
fn headers(workspace: &Path, folder: &Path) -> anyhow::Result<()> {
    let pins = Pins::of_this_machine(Content::CudaHeaders)?;
    let stamp = setup::stamp(&pins);
    let is_done = || fs::read_to_string(folder.join(setup::STAMP)).is_ok_and(|text| text == stamp);
    if is_done() {
        return Ok(());
    }
    prerequisites::pip()?;
    let work = workspace.join(".libtorch-cuda-work");
    fs::create_dir_all(&work).with_context(|| format!("cannot create `{}`", work.display()))?;
    let _held = setup::lock(&work)?;
    if is_done() {
        return Ok(());
    }
    fetch::provide(&pins, &work, folder, |staging| {
        let path = staging.join(setup::STAMP);
        fs::create_dir_all(staging.join("lib")).context("cannot create the folder of the library")?;
        fs::write(&path, &stamp).with_context(|| format!("cannot write `{}`", path.display()))
    })
}

/// Compiles and links; the library gets its name only when it is whole and needs nothing that will not be there.
fn compile(workspace: &Path, libtorch: &Path, cuda: &Path, library: &Path) -> anyhow::Result<()> {
    prerequisites::cxx()?;
    let sources = workspace.join(SOURCES);
    let partial = library.with_extension("partial");
    let compiler = env::var("CXX").ok().filter(|value| !value.is_empty()).unwrap_or_else(|| "c++".to_owned());
    let mut words = compiler.split_whitespace();
    let mut command = Command::new(words.next().context("CXX is blank")?);
    command.args(words).args(["-std=c++17", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"]);
    command.args(MACROS.map(|name| format!("-D{name}"))).arg("-I").arg(&sources);
    let include = libtorch.join("include");
    let system = [
        sources.join("cuda/nccl"),
        sources.join("cuda/opaque"),
        include.clone(),
        include.join("torch/csrc/api/include"),
        cuda.to_owned(),
    ];
    for folder in system {
        command.arg("-isystem").arg(folder);
    }
    command.arg(sources.join("cuda/nccl.cpp")).arg("-o").arg(&partial);
    process::run(&mut command)?;
    let unknown = unknown_symbols(&partial, &libtorch.join("lib"))?;
    ensure!(
        unknown.is_empty(),
        "{LIBRARY} needs what neither libtorch nor `{SOURCES}/cuda/symbols.txt` has: {}. If PyTorch's CUDA libraries have \
         it, add it there",
        unknown.join(", ")
    );
    fs::rename(&partial, library).with_context(|| format!("cannot create `{}`", library.display()))
}

/// Symbols of the library that neither libtorch's CPU half, nor the language's own libraries, nor the list has.
fn unknown_symbols(library: &Path, libtorch: &Path) -> anyhow::Result<Vec<String>> {
    let needed = symbols("--undefined-only", &[library.to_owned()])?;
    let there = symbols("--defined-only", &["libtorch_cpu.so", "libc10.so"].map(|name| libtorch.join(name)))?;
    Ok(unknown(&needed, &there, ALLOWED))
}

fn unknown(needed: &BTreeSet<String>, there: &BTreeSet<String>, allowed: &str) -> Vec<String> {
    let allowed: BTreeSet<&str> = allowed.lines().filter(|line| !line.starts_with('#')).collect();
    // A symbol with a version is one that the linker found, in the C or C++ library; the others are the compiler's own.
    let of_the_language =
        |name: &str| name.contains('@') || name.starts_with("_ITM_") || name.starts_with("__gmon_");
    let names = needed.iter().filter(|name| !of_the_language(name) && !there.contains(*name));
    names.filter(|name| !allowed.contains(name.as_str())).cloned().collect()
}

/// Dynamic symbols of libraries, by `nm` of the binutils that the compiler needs too.
fn symbols(which: &str, libraries: &[PathBuf]) -> anyhow::Result<BTreeSet<String>> {
    let mut nm = Command::new("nm");
    let output = nm.args(["--dynamic", which]).args(libraries).output();
    let output = output.context("cannot run `nm`, which comes with the compiler's binutils")?;
    if !output.status.success() {
        bail!(
            "`nm` failed: {}",
            String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("no message")
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect())
}

/// Names everything that the library is made of: our files by content, libtorch by its folder and version.
fn digest(sources: &Path, libtorch: &Path) -> anyhow::Result<String> {
    let mut files = Vec::new();
    list(sources, &mut files)?;
    files.sort();
    let mut hasher = Sha256::new();
    for file in files {
        let bytes = fs::read(&file).with_context(|| format!("cannot read `{}`", file.display()))?;
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
    let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let compiler = env::var("CXX").unwrap_or_default();
    Ok(format!("sha256 of the sources {hex}\nlibtorch {}\nCXX {compiler}\n", libtorch.display()))
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list `{}`", folder.display()))?;
    for entry in entries {
        let path = entry.context("cannot list the sources")?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_symbol_that_no_library_has_is_unknown_and_those_of_the_language_are_not() {
        let needed =
            set(&["strlen@GLIBC_2.2.5", "_ITM_registerTMCloneTable", "of_libtorch", "listed", "stray"]);
        let found = unknown(&needed, &set(&["of_libtorch"]), "# comment\nlisted\n");
        assert_eq!(found, ["stray"]);
    }

    #[test]
    fn the_list_of_symbols_is_short_and_holds_no_function_of_cuda_itself() {
        let listed: Vec<&str> = ALLOWED.lines().filter(|line| !line.starts_with('#')).collect();
        // CUDA's runtime is linked into nobody here: libtorch's own copy would be a second one.
        assert!(!listed.is_empty() && listed.iter().all(|name| !name.starts_with("cuda")), "{listed:?}");
    }

    #[test]
    fn a_changed_source_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("cuda")).unwrap();
        fs::write(folder.path().join("cuda/a.cpp"), "int a;").unwrap();
        let before = digest(folder.path(), Path::new("/libtorch")).unwrap();
        assert_eq!(digest(folder.path(), Path::new("/libtorch")).unwrap(), before);
        assert_ne!(digest(folder.path(), Path::new("/other")).unwrap(), before);
        fs::write(folder.path().join("cuda/a.cpp"), "int b;").unwrap();
        assert_ne!(digest(folder.path(), Path::new("/libtorch")).unwrap(), before);
    }
}
