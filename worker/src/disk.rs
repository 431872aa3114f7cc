//! Space on the worker's disk.

use std::io;
use std::path::Path;

/// Space that this user may still write to the file system of `path`, in MiB.
///
/// # Errors
///
/// What the operating system says.
pub fn free_mib(path: &Path) -> io::Result<u64> {
    let found = nix::sys::statvfs::statvfs(path)?;
    Ok(found.blocks_available().saturating_mul(found.fragment_size()) >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_some_space_for_tests_and_none_where_nothing_is() {
        assert!(free_mib(&std::env::temp_dir()).unwrap() > 0);
        assert!(free_mib(Path::new("/no/such/folder")).is_err());
    }
}
