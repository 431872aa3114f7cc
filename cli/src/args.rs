//! The command line.

mod doctor;
mod operations;
mod store;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use doctor::DoctorArguments;
pub use operations::{
    DrainArguments, ExplainArguments, PinArguments, PriorityArguments, TargetArguments, UndrainArguments,
};
pub use store::{StoreArguments, StoreCommand};

/// Run grids of uncertainty-quantification experiments on many machines, and read their tables.
#[derive(Debug, Parser)]
#[command(name = "credence", version, propagate_version = true, after_long_help = AFTER_HELP)]
pub struct Arguments {
    #[command(flatten)]
    pub client: ClientArguments,
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
A first run on one machine, in three terminals:
  credence coordinator
  credence worker --slots 2
  credence submit examples/quickstart.toml --watch && credence table quickstart

Exit status:
  0  done
  1  failed; with `watch` also: the experiment failed or was cancelled
  2  wrong usage: unknown flag, bad configuration, bad grid file
  3  no experiment, trial, log or artifact has that name
  4  the coordinator cannot be reached";

/// Where the coordinator is. For every command but `coordinator`.
#[derive(Debug, Args)]
pub struct ClientArguments {
    /// URL of the coordinator
    ///
    /// http://127.0.0.1:7070 if not given; a worker takes it from its configuration.
    #[arg(long, global = true, env = "CREDENCE_COORDINATOR", value_name = "URL")]
    coordinator: Option<String>,
}

impl ClientArguments {
    /// The coordinator that was named, if one was.
    pub fn given(&self) -> Option<&str> {
        self.coordinator.as_deref()
    }

    /// The coordinator to speak to.
    pub fn url(&self) -> &str {
        self.given().unwrap_or("http://127.0.0.1:7070")
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the coordinator: it takes grids, schedules their trials, and keeps the results
    Coordinator(CoordinatorArguments),
    /// Run a worker on this machine: it offers slots and runs trainers on them
    Worker(WorkerArguments),
    /// Submit a grid file
    Submit(SubmitArguments),
    /// List experiments
    List(ListArguments),
    /// Show where an experiment or a trial stands, and why
    Status(StatusArguments),
    /// Say why a trial does not run, or what may take it from where it runs
    Explain(ExplainArguments),
    /// Follow an experiment to its end
    Watch(WatchArguments),
    /// Print the log of a trial's trainer
    Logs(LogsArguments),
    /// Cancel an experiment or a trial
    Cancel(TargetArguments),
    /// Hold an experiment or a trial back; what runs writes a checkpoint first
    Pause(TargetArguments),
    /// Take a pause back
    Resume(TargetArguments),
    /// Give an experiment another priority
    Priority(PriorityArguments),
    /// Keep a checkpoint of a trial, whatever the retention policy says
    Pin(PinArguments),
    /// Take a pin back
    Unpin(PinArguments),
    /// Print the table of an experiment: mean ± sd over seeds, n of N, comparisons, intervals
    Table(TableArguments),
    /// Print reliability, risk-coverage, ROC and precision-recall data of stored predictions
    Curves(CurvesArguments),
    /// List or fetch the files of a trial
    Artifacts(ArtifactsArguments),
    /// Print the values that a trial measured while it ran
    Metrics(MetricsArguments),
    /// List workers
    Workers(WorkersArguments),
    /// Give a worker nothing new, until it is undrained
    Drain(DrainArguments),
    /// Use a drained worker, or one in quarantine, again
    Undrain(UndrainArguments),
    /// Check, export and import what a coordinator stores; needs no coordinator
    Store(StoreArguments),
    /// List, check and fetch data sets; needs no coordinator
    Data(DataArguments),
    /// Say what a worker on this machine would find, and what to do about what is missing; needs no coordinator
    Doctor(DoctorArguments),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// How a long-running command logs.
#[derive(Debug, Args)]
pub struct LogArguments {
    /// Form of log lines, on standard error
    #[arg(long, env = "CREDENCE_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// What to log, like `info` or `coordinator=debug,info`
    #[arg(long, env = "CREDENCE_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
}

#[derive(Debug, Args)]
pub struct CoordinatorArguments {
    /// Configuration file (TOML); see --print-config
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the commented default configuration and exit
    #[arg(long)]
    pub print_config: bool,
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Folder of the log, the results and the checkpoints
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Write the address to this file once it listens
    #[arg(long, value_name = "FILE")]
    pub address_file: Option<PathBuf>,
    #[command(flatten)]
    pub logging: LogArguments,
}

#[derive(Debug, Args)]
pub struct WorkerArguments {
    /// Configuration file (TOML); see --print-config
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the commented default configuration and exit
    #[arg(long)]
    pub print_config: bool,
    /// Folder of the worker's identity, attempts and cache
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Folder that holds data sets in their official layout
    #[arg(long, value_name = "FOLDER")]
    pub datasets_dir: Option<PathBuf>,
    /// Trials of one rank that may run at once; `auto` for one a GPU
    #[arg(long, value_name = "N")]
    pub slots: Option<String>,
    /// Threads of one rank
    #[arg(long, value_name = "N")]
    pub threads_per_slot: Option<u32>,
    /// Kind of device of the slots: `cpu`, `cuda` or `auto`
    #[arg(long, value_name = "KIND")]
    pub device: Option<String>,
    /// Name for people
    #[arg(long)]
    pub name: Option<String>,
    /// Host name or address at which ranks on other workers reach this one
    #[arg(long)]
    pub host: Option<String>,
    /// Program of one rank
    #[arg(long, value_name = "FILE")]
    pub trainer: Option<PathBuf>,
    #[command(flatten)]
    pub logging: LogArguments,
}

#[derive(Debug, Args)]
pub struct SubmitArguments {
    /// Grid file (TOML); `-` reads standard input
    pub file: PathBuf,
    /// Print the trials and submit nothing; needs no coordinator
    #[arg(long)]
    pub dry_run: bool,
    /// Follow the experiment to its end
    #[arg(long, conflicts_with = "dry_run")]
    pub watch: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ListArguments {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct StatusArguments {
    /// Name or id of an experiment (`quickstart`, `e3`), or id or key of a trial (`t7`)
    pub target: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct WatchArguments {
    /// Name or id of an experiment
    pub experiment: String,
    /// Print one JSON object a change
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct LogsArguments {
    /// Id or key of a trial
    pub trial: String,
    /// Attempt, like `a12`; the newest if not given
    #[arg(long)]
    pub attempt: Option<String>,
    /// Rank
    #[arg(long, default_value_t = 0)]
    pub rank: u32,
    /// Only the last so many bytes
    #[arg(long, value_name = "BYTES")]
    pub tail: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum TableFormat {
    Text,
    Markdown,
    Csv,
    Json,
    Latex,
}

/// What a table can be held against.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Against {
    /// Published figures that were read in their source, for the same data set, network and method
    Published,
}

#[derive(Debug, Args)]
pub struct TableArguments {
    /// Name or id of an experiment
    pub experiment: String,
    /// Form of the table
    #[arg(long, default_value = "text")]
    pub format: TableFormat,
    /// Metrics to show, in this order, separated by commas; `all`, or groups of them: classification, calibration,
    /// selective, detection, uncertainty, diversity, shift, cost
    #[arg(long, value_delimiter = ',', value_name = "METRIC,…")]
    pub columns: Vec<String>,
    /// Methods to show, in this order, separated by commas
    #[arg(long, value_name = "METHOD,…")]
    pub rows: Vec<String>,
    /// Compare every row with this method's, over the seeds that both have: difference, p-value, effect
    #[arg(long, value_name = "METHOD")]
    pub compare: Option<String>,
    /// Show figures of others below the rows that they belong to
    #[arg(long, value_name = "SOURCE")]
    pub against: Option<Against>,
    /// Fetch the predictions of every trial, and show bootstrap intervals over test examples, of this many percent
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, default_missing_value = "95")]
    pub ci: Option<f64>,
    /// Bootstrap replicates
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "ci")]
    pub replicates: usize,
    /// Fetch the predictions of every trial, compute each score again, and say where it differs
    #[arg(long)]
    pub recompute: bool,
}

/// A curve of stored predictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CurveKind {
    /// Accuracy against confidence, in 15 bins of equal width
    Reliability,
    /// Error rate against the share of examples that are answered, most confident first
    RiskCoverage,
    /// Recall against false alarms, out of distribution being positive, by the maximum probability
    Roc,
    /// Precision against recall
    Pr,
}

/// How a curve is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum CurveFormat {
    Csv,
    Json,
    Svg,
}

#[derive(Debug, Args)]
pub struct CurvesArguments {
    /// Id or key of an evaluate trial, or name or id of an experiment
    pub target: String,
    /// Which curve
    #[arg(long)]
    pub kind: CurveKind,
    /// Out-of-distribution set of a roc or pr curve; not needed if there is only one
    #[arg(long, value_name = "NAME")]
    pub set: Option<String>,
    /// Of an experiment: only this data set
    #[arg(long, value_name = "LABEL")]
    pub data: Option<String>,
    /// Of an experiment: only this model
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Of an experiment: only this method
    #[arg(long, value_name = "LABEL")]
    pub method: Option<String>,
    /// Of an experiment: only this seed
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// Form of the data
    #[arg(long, default_value = "csv")]
    pub format: CurveFormat,
}

#[derive(Debug, Args)]
pub struct ArtifactsArguments {
    /// Id or key of a trial
    pub trial: String,
    /// Artifact to fetch; all are listed if not given
    pub name: Option<String>,
    /// File to write; the artifact's name if not given, `-` for standard output
    #[arg(long, short, requires = "name", value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print JSON
    #[arg(long, conflicts_with = "name")]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct MetricsArguments {
    /// Id or key of a trial
    pub trial: String,
    /// Only these metrics, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "METRIC,…")]
    pub names: Vec<String>,
    /// Only rows of later steps
    #[arg(long, default_value_t = 0, value_name = "STEP")]
    pub after: u64,
    /// Print JSON lines instead of CSV
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct WorkersArguments {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DataArguments {
    #[command(subcommand)]
    pub command: DataCommand,
}

#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Print every data set: shape, size, folder, licence, and what is published with its digest
    List(DataListArguments),
    /// Say whether the files of data sets are there, whole, and the published ones; status 1 if something is wrong
    Check(CheckArguments),
    /// Download the published files of a data set, verify and unpack them; goes on where it was stopped
    Fetch(FetchArguments),
}

#[derive(Debug, Args)]
pub struct DataListArguments {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Folder that holds data sets in their official layout
    pub path: PathBuf,
    /// Data sets that have to be there; if none is named, all that are there are checked
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
pub struct FetchArguments {
    /// Data set, as `credence data list` names it
    pub name: String,
    /// Folder that holds data sets; made if it is not there
    #[arg(long, value_name = "FOLDER")]
    pub to: PathBuf,
    /// Folder on another server that holds the same files
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Only this file of several
    #[arg(long, value_name = "FILE")]
    pub only: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
