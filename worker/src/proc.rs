//! What Linux says of a process in `/proc`.

use std::str::SplitWhitespace;

/// Fields of a process's or thread's `stat` behind its name, the state first.
pub fn fields(stat: &str) -> Option<SplitWhitespace<'_>> {
    // The command's name may hold spaces and parentheses; fields are counted after its end.
    Some(stat.rsplit_once(')')?.1.split_whitespace())
}

/// A field of a process's `status` that counts KiB, like `VmRSS:`.
pub fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
