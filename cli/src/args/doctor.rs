//! `credence doctor`

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// Configuration file of the worker (TOML), as for `credence worker`
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Kind of device that trials are to run on: `cpu`, `cuda` or `auto`
    #[arg(long, value_name = "KIND")]
    pub device: Option<String>,
    /// Folder of CUDA's half of libtorch, or a Python environment with it
    #[arg(long, value_name = "FOLDER")]
    pub cuda_libtorch: Option<PathBuf>,
    /// Folder of the worker's identity, attempts and cache
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Folder that holds data sets in their official layout
    #[arg(long, value_name = "FOLDER")]
    pub datasets_dir: Option<PathBuf>,
    /// Program of one rank
    #[arg(long, value_name = "FILE")]
    pub trainer: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
