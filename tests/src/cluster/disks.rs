//! Data folders of services on disks of their own, and the files that lie in them.

use std::path::{Path, PathBuf};

use proto::v1::GetTrialRequest;
use proto::v1::credence_client::CredenceClient;

use super::cores::Cores;
use super::{Cluster, Lease};
use crate::disk::{NoDisk, SmallDisk};

impl Cluster {
    /// As [`Cluster::with_cores`] for workers of these names, but the data folders of all services are disks of this
    /// size.
    ///
    /// # Errors
    ///
    /// When this machine allows no such disks.
    pub fn on_small_disks(lease: Lease, names: &[&str], mib: u64) -> Result<Self, NoDisk> {
        let mut cluster = Self::prepare(Cores::take(names.len()), lease);
        let folders = names.iter().map(|name| cluster.worker_dir(name)).chain([cluster.data_dir()]);
        for (number, folder) in folders.collect::<Vec<_>>().into_iter().enumerate() {
            let log = cluster.path(&format!("disk-{number}.log"));
            let disk = SmallDisk::mount(&folder, mib, log)?;
            cluster.disks.insert(folder, disk);
        }
        cluster.start_coordinator();
        Ok(cluster)
    }

    /// Where a service's data folder is for us: a small disk is mounted for its service alone.
    pub(super) fn seen(&self, folder: &Path) -> PathBuf {
        self.disks.get(folder).map_or_else(|| folder.to_owned(), |disk| disk.seen(folder))
    }

    /// The coordinator's small disk, if it has one.
    pub fn coordinator_disk(&self) -> Option<&SmallDisk> {
        self.disks.get(&self.data_dir())
    }

    /// The small disk of a worker, if it has one.
    pub fn worker_disk(&self, name: &str) -> Option<&SmallDisk> {
        self.disks.get(&self.worker_dir(name))
    }

    /// Steps and files of the checkpoints of a trial that are kept, oldest first.
    ///
    /// # Panics
    ///
    /// When the coordinator does not answer.
    pub fn checkpoint_files(&self, trial: &str) -> Vec<(u64, PathBuf)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let request = GetTrialRequest { trial: trial.to_owned() };
        let found = runtime.block_on(async {
            let mut client = CredenceClient::connect(self.url()).await.expect("a coordinator");
            client.get_trial(request).await.expect("a trial").into_inner()
        });
        let folder = self.seen(&self.data_dir()).join("blobs");
        let file = |digest: &str| folder.join(&digest[..2]).join(digest);
        let mut files: Vec<_> =
            found.checkpoints.iter().map(|kept| (kept.step, file(&kept.digest))).collect();
        files.sort();
        files
    }
}
