//! The programs that must be on the machine already: a Rust toolchain, a C++ compiler, make, Python 3 with pip.
//!
//! Each check says what is missing and how to get it. Nothing is installed.

use std::env;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

/// Oldest rustc that builds the workspace: `rust-version` of the manifest.
const RUST_VERSION: &str = env!("CARGO_PKG_RUST_VERSION");

/// First pip whose `download` takes several `--platform`.
const PIP_VERSION: Version = Version(20, 3);

/// A program of C++17 that also needs the standard library's headers.
const CXX17: &str = "#include <optional>\n#include <string_view>\nstd::optional<std::string_view> x;\n";

/// Major and minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

impl Version {
    /// Reads the second word of lines such as `rustc 1.95.0 (59807616e 2026-04-14)`.
    fn of_line(line: &str) -> Option<Self> {
        Self::parse(line.split_whitespace().nth(1)?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(['.', '-', '+']);
        Some(Self(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
}

/// Checks that rustc is new enough.
pub fn rust() -> anyhow::Result<()> {
    let line = first_line(&mut Command::new("rustc"), &["--version"])
        .context("cannot run `rustc`: install Rust with rustup, https://rustup.rs")?;
    let needed = Version::parse(RUST_VERSION).context("unreadable rust-version in the manifest")?;
    ensure!(
        Version::of_line(&line).is_some_and(|version| version >= needed),
        "`{line}` is too old: Credence needs Rust {RUST_VERSION} or newer (`rustup update stable`)"
    );
    Ok(())
}

/// Checks that the compiler that the build scripts will use understands C++17.
pub fn cxx() -> anyhow::Result<()> {
    let chosen = env::var("CXX").ok().filter(|value| !value.is_empty());
    // The `cc` crate takes $CXX, else `c++`; a compiler under another name has to be named to it.
    let command = chosen.as_deref().unwrap_or("c++");
    match compiles_cxx17(command) {
        Ok(None) => Ok(()),
        Ok(Some(message)) => bail!(
            "the C++ compiler `{command}` does not compile C++17; install g++ 9 or clang++ 9 or newer, or name \
             another one in CXX. It said: {message}"
        ),
        Err(_) => {
            let other = ["g++", "clang++"].into_iter().find(|name| matches!(compiles_cxx17(name), Ok(None)));
            match other {
                Some(name) => {
                    bail!("there is no C++ compiler `{command}`, but `{name}` works: set CXX={name}")
                }
                None => bail!(
                    "there is no C++ compiler `{command}`: install one, for example with \
                     `apt install g++`, `dnf install gcc-c++` or `pacman -S gcc`, or name yours in CXX"
                ),
            }
        }
    }
}

/// Checks that there is a make, which builds the allocator.
pub fn make() -> anyhow::Result<()> {
    first_line(&mut Command::new("make"), &["--version"]).context(
        "cannot run `make`: install it, for example with `apt install make`, `dnf install make` or `pacman -S make`",
    )?;
    Ok(())
}

/// Checks that Python 3 has a pip that can download for a given platform.
pub fn pip() -> anyhow::Result<()> {
    const INSTALL: &str = "install Python 3 with pip, for example with `apt install python3-pip` or \
        `dnf install python3-pip`, or set LIBTORCH to the folder of a libtorch of your own";
    let python = first_line(&mut Command::new("python3"), &["--version"])
        .with_context(|| format!("cannot run `python3`, which fetches libtorch: {INSTALL}"))?;
    let line = first_line(&mut Command::new("python3"), &["-m", "pip", "--version"])
        .with_context(|| format!("{python} has no pip, which fetches libtorch: {INSTALL}"))?;
    ensure!(
        Version::of_line(&line).is_some_and(|version| version >= PIP_VERSION),
        "`{line}` is too old to fetch libtorch: pip {}.{} or newer is needed \
         (`python3 -m pip install --user --upgrade pip`)",
        PIP_VERSION.0,
        PIP_VERSION.1
    );
    Ok(())
}

/// `None` when the compiler accepts C++17, else the first line that it printed.
fn compiles_cxx17(command: &str) -> anyhow::Result<Option<String>> {
    // CXX may hold arguments or a launcher (`ccache g++`), as the `cc` crate allows.
    let mut words = command.split_whitespace();
    let program = words.next().context("CXX is blank")?;
    let mut compiler = Command::new(program);
    compiler.args(words).args(["-std=c++17", "-fsyntax-only", "-x", "c++", "-"]);
    let mut child = compiler.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A compiler that stops early closes the pipe; its exit status and message say why.
        let _ = stdin.write_all(CXX17.as_bytes());
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Ok(Some(text.lines().next().unwrap_or("nothing").to_owned()))
}

fn first_line(command: &mut Command, arguments: &[&str]) -> anyhow::Result<String> {
    let output = command.args(arguments).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("no message")
    );
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers_and_ignore_what_follows() {
        let rustc = Version::of_line("rustc 1.100.0-nightly (59807616e 2026-04-14)").unwrap();
        assert!(rustc > Version(1, 95));
        assert_eq!(Version::of_line("pip 20.3.4 from /usr/lib (python 3.9)"), Some(PIP_VERSION));
        assert_eq!(Version::of_line("rustc"), None);
        assert_eq!(Version::parse("1.88"), Some(Version(1, 88)));
    }

    #[test]
    fn a_missing_compiler_is_told_from_one_that_refuses_the_program() {
        assert!(compiles_cxx17("no-such-compiler-here").is_err());
        assert!(compiles_cxx17("false").unwrap().is_some());
        assert_eq!(compiles_cxx17("true").unwrap(), None);
    }

    #[test]
    fn this_machine_which_built_the_test_has_a_new_enough_rust() {
        rust().unwrap();
    }
}
