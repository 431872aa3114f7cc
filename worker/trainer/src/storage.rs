//! Tensors as safetensors files that are either whole or absent.
//!
//! Decides how bytes reach the disk. Does not know what the tensors mean; see `checkpoint` and `evaluate`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensorError, TensorView, View};
use tch::{Device, Kind, TchError, Tensor};

/// A tensor that could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The file system refused.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not safetensors.
    #[error("`{}` is not a whole safetensors file", path.display())]
    Format {
        /// Which file.
        path: PathBuf,
        /// What the parser says.
        source: SafeTensorError,
    },
    /// The tensor has a kind that is neither written nor read.
    #[error("tensor `{name}` has a kind that is not stored")]
    Kind {
        /// Which tensor.
        name: String,
    },
    /// libtorch refused.
    #[error("libtorch could not copy tensor `{name}`")]
    Torch {
        /// Which tensor.
        name: String,
        /// Why not.
        source: TchError,
    },
}

impl StorageError {
    /// Whether the disk has no space, or takes no writes: it may have some later.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind as Kind;
        match self {
            Self::Io { source, .. } => matches!(
                source.kind(),
                Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge | Kind::ReadOnlyFilesystem
            ),
            Self::Format { .. } | Self::Kind { .. } | Self::Torch { .. } => false,
        }
    }
}

/// A tensor on the host that nobody changes any more, ready to be written.
pub struct HostTensor {
    name: String,
    tensor: Tensor,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl HostTensor {
    /// Copies `tensor` to the host.
    ///
    /// # Errors
    ///
    /// [`StorageError::Kind`] for kinds other than those of [`dtype_of`].
    pub fn copy_of(name: String, tensor: &Tensor) -> Result<Self, StorageError> {
        let detached = tensor.detach();
        let copy = match tensor.device() {
            Device::Cpu => detached.copy(),
            // sync: waits for the device.
            Device::Cuda(_) | Device::Mps | Device::Vulkan => detached.to_device(Device::Cpu),
        };
        Self::from_host(name, copy.contiguous())
    }

    /// Takes a contiguous tensor on the host without copying it.
    ///
    /// # Errors
    ///
    /// As [`copy_of`](Self::copy_of).
    pub fn from_host(name: String, tensor: Tensor) -> Result<Self, StorageError> {
        let Some(dtype) = dtype_of(tensor.kind()) else { return Err(StorageError::Kind { name }) };
        let shape = tensor.size().iter().map(|&axis| axis.unsigned_abs() as usize).collect();
        Ok(Self { name, tensor, dtype, shape })
    }

    /// Name in the file.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl View for &HostTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0; self.data_len()];
        self.tensor.copy_data_u8(&mut bytes, self.tensor.numel());
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}

/// Name in the file format of a kind that files of ours hold.
pub fn dtype_of(kind: Kind) -> Option<Dtype> {
    match kind {
        Kind::Float => Some(Dtype::F32),
        Kind::Double => Some(Dtype::F64),
        Kind::Int64 => Some(Dtype::I64),
        Kind::Half
        | Kind::BFloat16
        | Kind::Uint8
        | Kind::Int8
        | Kind::Int16
        | Kind::Int
        | Kind::Bool
        | Kind::ComplexHalf
        | Kind::ComplexFloat
        | Kind::ComplexDouble
        | Kind::QInt8
        | Kind::QUInt8
        | Kind::QInt32
        | Kind::Float8e5m2
        | Kind::Float8e4m3fn
        | Kind::Float8e5m2fnuz
        | Kind::Float8e4m3fnuz => None,
    }
}

/// Copies a stored tensor to a host tensor.
///
/// # Errors
///
/// [`StorageError::Kind`] for kinds that neither files of ours nor files of weights have.
pub fn tensor_of(name: &str, view: &TensorView<'_>) -> Result<Tensor, StorageError> {
    let kind = if view.dtype() == Dtype::F32 {
        Kind::Float
    } else if view.dtype() == Dtype::F64 {
        Kind::Double
    } else if view.dtype() == Dtype::I64 {
        Kind::Int64
    } else if view.dtype() == Dtype::F16 {
        Kind::Half
    } else if view.dtype() == Dtype::BF16 {
        Kind::BFloat16
    } else {
        return Err(StorageError::Kind { name: name.to_owned() });
    };
    let shape: Vec<i64> = view.shape().iter().map(|&axis| axis as i64).collect();
    Tensor::f_from_data_size(view.data(), &shape, kind)
        .map_err(|source| StorageError::Torch { name: name.to_owned(), source })
}

/// Writes `folder/name`: under a temporary name, synced, renamed, and the folder synced, so that after a
/// crash the name stands for the whole file or for none.
///
/// The metadata is one entry, because safetensors writes several in an order that changes from run to run,
/// and equal content should be equal bytes.
///
/// # Errors
///
/// [`StorageError::Io`] when the file system refuses; nothing is left then.
pub fn write(
    folder: &Path,
    name: &str,
    tensors: &[HostTensor],
    metadata: (&str, String),
) -> Result<PathBuf, StorageError> {
    let partial = folder.join(format!(".{name}.partial"));
    let written = write_whole(folder, name, &partial, tensors, metadata);
    if written.is_err() {
        // What is half written takes the space that others wait for. It may not be there at all.
        let _ = fs::remove_file(&partial);
    }
    written
}

fn write_whole(
    folder: &Path,
    name: &str,
    partial: &Path,
    tensors: &[HostTensor],
    (key, value): (&str, String),
) -> Result<PathBuf, StorageError> {
    let path = folder.join(name);
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| StorageError::Io { action, path, source }
    };
    let metadata = HashMap::from([(key.to_owned(), value)]);
    let entries = tensors.iter().map(|tensor| (tensor.name(), tensor));
    safetensors::serialize_to_file(entries, Some(metadata), partial).map_err(|error| match error {
        SafeTensorError::IoError(source) => io("write", partial)(source),
        source => StorageError::Format { path: partial.to_owned(), source },
    })?;
    File::open(partial).and_then(|file| file.sync_all()).map_err(io("sync", partial))?;
    fs::rename(partial, &path).map_err(io("rename", partial))?;
    File::open(folder).and_then(|file| file.sync_all()).map_err(io("sync", folder))?;
    Ok(path)
}

/// Reads a whole file.
///
/// # Errors
///
/// [`StorageError::Io`] when it cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, StorageError> {
    fs::read(path).map_err(|source| StorageError::Io { action: "read", path: path.to_owned(), source })
}
