//! `credence store`

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct StoreArguments {
    #[command(subcommand)]
    pub command: StoreCommand,
}

#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Read every record and every blob, and say what is damaged or missing; status 1 if something is
    Verify(VerifyArguments),
    /// Write the event log, results and warnings to one file; blobs are copied as files
    Export(ExportArguments),
    /// Make a coordinator's folder of an exported file
    Import(ImportArguments),
}

#[derive(Debug, Args)]
pub struct FolderArguments {
    /// The coordinator's data folder
    #[arg(
        long,
        env = "CREDENCE_COORDINATOR_DATA_DIR",
        value_name = "FOLDER",
        default_value = "credence-coordinator"
    )]
    pub data_dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct VerifyArguments {
    #[command(flatten)]
    pub folder: FolderArguments,
}

#[derive(Debug, Args)]
pub struct ExportArguments {
    /// File to write; it appears when it is whole
    pub file: PathBuf,
    #[command(flatten)]
    pub folder: FolderArguments,
}

#[derive(Debug, Args)]
pub struct ImportArguments {
    /// File that `credence store export` wrote
    pub file: PathBuf,
    #[command(flatten)]
    pub folder: FolderArguments,
    /// Take a file whose end was cut up to its last whole commit
    #[arg(long)]
    pub accept_torn_tail: bool,
}
