//! Arguments of the commands that change what runs, and where.

use clap::Args;

/// An experiment or a trial.
#[derive(Debug, Args)]
pub struct TargetArguments {
    /// Name or id of an experiment (`quickstart`, `e3`), or id or key of a trial (`t7`)
    pub target: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct PriorityArguments {
    /// Name or id of an experiment
    pub experiment: String,
    /// Higher goes first; a grid that names none has 0
    #[arg(allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    pub priority: i32,
}

#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// Id or key of a trial
    pub trial: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct PinArguments {
    /// Id or key of a trial
    pub trial: String,
    /// Step of the checkpoint, as `credence status TRIAL` lists it
    pub step: u64,
}

#[derive(Debug, Args)]
pub struct DrainArguments {
    /// Id or name of a worker
    pub worker: String,
    /// Do not wait for what runs there: it writes a checkpoint and goes elsewhere
    #[arg(long)]
    pub now: bool,
    /// Why, for whoever asks
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct UndrainArguments {
    /// Id or name of a worker
    pub worker: String,
}
