//! What the operating system says about this machine and its processes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;

/// The machine that figures were measured on.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Processor.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory in GiB.
    pub memory_gib: f64,
    /// Kernel.
    pub kernel: String,
    /// Load average of the last minute when the run began: figures of a busy machine are no figures.
    pub load_before: f64,
}

impl Machine {
    /// Describes this one.
    pub fn describe() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let kib = field(&read("/proc/meminfo"), "MemTotal").and_then(|text| kib(&text)).unwrap_or_default();
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: kib as f64 / f64::from(1 << 20),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|text| text.parse().ok())
                .unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { processor, cores, memory_gib, kernel, load_before } = self;
        write!(f, "{cores} cores of {processor}, {memory_gib:.0} GiB, Linux {kernel}, load {load_before}")
    }
}

fn kib(text: &str) -> Option<u64> {
    text.strip_suffix(" kB")?.trim().parse().ok()
}

/// Memory of a process that is resident now, and at most so far, in MiB. `None` when it is gone.
pub(crate) fn resident_mib(pid: u32) -> Option<(f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(kib(line.trim())? as f64 / 1024.0)
    };
    Some((field("VmRSS:")?, field("VmHWM:")?))
}

/// Processor time that a process used. `None` when it is gone.
pub(crate) fn processor_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program stands in parentheses and may hold blanks.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok()??;
    Some(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// Size of the files below a folder in MiB.
pub(crate) fn size_mib(folder: &Path) -> f64 {
    fn bytes(folder: &Path) -> u64 {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let size = |entry: fs::DirEntry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes(&entry.path()),
            Ok(found) => found.len(),
            // It went away meanwhile.
            Err(_) => 0,
        };
        entries.map(size).sum()
    }
    bytes(folder) as f64 / f64::from(1 << 20)
}

/// Copies a folder with all that is in it.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Lets this process and those that it starts have as many open files as they may: thousands of connections need more
/// than the usual 1,024.
pub(crate) fn raise_open_files() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_has_worked() {
        let (now, most) = resident_mib(std::process::id()).unwrap();
        assert!(now > 0.5 && most >= now, "{now} {most}");
        assert!(processor_time(std::process::id()).is_some());
        assert!(resident_mib(u32::MAX).is_none());
    }

    #[test]
    fn the_machine_is_described() {
        let machine = Machine::describe();
        assert!(machine.cores > 0 && machine.memory_gib > 0.1 && !machine.kernel.is_empty(), "{machine}");
    }

    #[test]
    fn a_folder_is_as_large_as_its_files() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/b"), vec![0; 1 << 20]).unwrap();
        fs::write(folder.path().join("c"), vec![0; 1 << 19]).unwrap();
        assert_eq!(size_mib(folder.path()), 1.5);
        let copy = tempfile::tempdir().unwrap();
        copy_folder(folder.path(), copy.path()).unwrap();
        assert_eq!(size_mib(copy.path()), 1.5);
    }
}
