//! A disk of limited size for one process: a tmpfs in a mount namespace of its own, so that nothing of this machine fills.
//!
//! A process that only waits keeps the namespace, so that a service may be killed and started again without losing its
//! files. From outside they are seen through `/proc/PID/root`.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::{Service, ServiceCommand};
use crate::wait::within;

/// File that takes the space.
const FILLER: &str = "filler";

/// How long making the namespace may take.
const MAKING: Duration = Duration::from_secs(10);

/// Why there can be no such disk here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoDisk(pub String);

/// A small disk, mounted at a folder.
#[derive(Debug)]
pub struct SmallDisk {
    holder: Service,
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts a disk of this size at an empty folder, for those that enter it.
    ///
    /// # Errors
    ///
    /// When this machine does not let its users make namespaces, with what it said.
    pub fn mount(folder: &Path, mib: u64, log: PathBuf) -> Result<Self, NoDisk> {
        fs::create_dir_all(folder).map_err(|error| NoDisk(error.to_string()))?;
        let path = folder.to_str().ok_or_else(|| NoDisk("the folder has no plain name".to_owned()))?;
        // What becomes of the shell only waits.
        let script = format!(
            "mount -t tmpfs -o size={mib}m credence-test \"$0\" && echo mounted && exec sleep infinity"
        );
        let arguments = ["-U", "-r", "-m", "sh", "-c", &script, path].map(str::to_owned).to_vec();
        if !Path::new("/usr/bin/unshare").exists() || !Path::new("/usr/bin/nsenter").exists() {
            return Err(NoDisk("`unshare` or `nsenter` is not installed".to_owned()));
        }
        let program = Path::new("/usr/bin/unshare");
        let mut holder = Service::start(ServiceCommand { program, arguments, log });
        let ended = within(MAKING, || {
            let mounted = holder.log().contains("mounted");
            (mounted || !holder.is_running()).then_some(!mounted)
        });
        match ended {
            Some(false) => Ok(Self { holder, folder: folder.to_owned() }),
            Some(true) | None => Err(NoDisk(holder.log().trim().to_owned())),
        }
    }

    /// Program and first arguments of a command that runs with this disk.
    pub(crate) fn enter(&self, program: &Path, arguments: Vec<String>) -> (PathBuf, Vec<String>) {
        let holder = self.holder.pid().to_string();
        let enter = ["-t", &holder, "-U", "-m", "--preserve-credentials", "--"].map(str::to_owned);
        let program = program.to_string_lossy().into_owned();
        let arguments = enter.into_iter().chain([program]).chain(arguments).collect();
        (PathBuf::from("/usr/bin/nsenter"), arguments)
    }

    /// Where a file of the disk is for those outside.
    pub fn seen(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.pid()));
        root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Takes all the space that is left.
    ///
    /// # Panics
    ///
    /// When it is not the space that ends it.
    pub fn fill(&self) {
        let path = self.seen(&self.folder).join(FILLER);
        let mut file = File::create(path).expect("a file on the small disk");
        for size in [1 << 20, 1 << 12, 1] {
            loop {
                match file.write(&vec![0; size]) {
                    Ok(written) if written == size => {}
                    // A part was written, or nothing: a smaller piece may still fit.
                    Ok(_) => break,
                    Err(error) => {
                        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
                        break;
                    }
                }
            }
        }
    }

    /// Gives the space back.
    pub fn free(&self) {
        // One that was never taken is free.
        drop(fs::remove_file(self.seen(&self.folder).join(FILLER)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_disk_fills_alone_and_gives_its_space_back() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("disk");
        let disk = match SmallDisk::mount(&place, 1, folder.path().join("log")) {
            Ok(disk) => disk,
            Err(NoDisk(why)) => return eprintln!("skipped, there are no small disks here: {why}"),
        };
        let file = disk.seen(&place).join("file");
        fs::write(&file, "before").unwrap();
        disk.fill();
        let full = fs::write(disk.seen(&place).join("more"), vec![0; 5_000]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
        disk.free();
        fs::write(disk.seen(&place).join("more"), vec![0; 5_000]).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "before");
        // Nobody outside sees it, and this machine's disk holds nothing of it.
        assert!(fs::read_dir(&place).unwrap().next().is_none());
    }
}
