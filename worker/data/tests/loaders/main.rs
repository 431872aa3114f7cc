//! Every loader on files in the official layout: small ones that the tests write, damaged ones, and real ones.

#[cfg(test)]
mod cifar;
#[cfg(test)]
mod corrupted;
#[cfg(test)]
mod folders;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod idx;
#[cfg(test)]
mod mat_writer;
#[cfg(test)]
mod real_data;
#[cfg(test)]
mod svhn;

#[cfg(test)]
mod support {
    use std::fs;
    use std::path::{Path, PathBuf};

    use datasets::{Completeness, DataError, DataFolder, DatasetName, Images, Split, load};
    use sha2::{Digest, Sha256};
    use tempfile::TempDir;

    /// A data folder that a test fills.
    pub struct Folder(TempDir);

    impl Folder {
        pub fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        pub fn path(&self, file: &str) -> PathBuf {
            self.0.path().join(file)
        }

        pub fn root(&self) -> &Path {
            self.0.path()
        }

        pub fn write(&self, file: &str, content: &[u8]) {
            let path = self.path(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        /// A file of `size` zero bytes that takes no room on the disk.
        pub fn write_zeros(&self, file: &str, size: u64) {
            self.write(file, &[]);
            fs::File::options().write(true).open(self.path(file)).unwrap().set_len(size).unwrap();
        }

        pub fn load(
            &self,
            name: DatasetName,
            split: Split,
            completeness: Completeness,
        ) -> Result<Images, DataError> {
            load(name, split, &DataFolder::new(self.0.path()), completeness)
        }
    }

    pub fn sha256(bytes: &[u8]) -> String {
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
