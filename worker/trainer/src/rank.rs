//! One rank from its launch file to its exit status: what is run, and what a failure is called.

use std::fs;
use std::io;
use std::panic;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use common::FailureCause;
use common::report::{Launch, Report, exit};
use common::spec::TrialSpec;

use crate::agent::{Agent, Commands, Reporter, standard_input};
use crate::beacon::Beacon;
use crate::error::{TrainerError, cause_of_text, chain};
use crate::fence::Fence;
use crate::{device, evaluate, log, memory, train};

/// A launch file that is missing or not understood.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// It cannot be read.
    #[error("cannot read the launch file `{}`", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is not a launch.
    #[error("`{}` is not a launch file of this version", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
}

/// Reads a launch file.
///
/// # Errors
///
/// [`LaunchError`] names the file.
pub fn read_launch(path: &Path) -> Result<Launch, LaunchError> {
    let text = fs::read(path).map_err(|source| LaunchError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|source| LaunchError::Parse { path: path.to_owned(), source })
}

/// What is set once in the life of a process, whatever it runs. libtorch refuses the second setting of some of it.
pub fn prepare_process(reporter: &Arc<Reporter>) {
    report_panics(reporter);
    tch::set_num_interop_threads(1);
}

/// Runs the rank that the process was started for, and returns its exit status.
pub fn run(launch: &Launch) -> i32 {
    let reporter = match Reporter::stdout() {
        Ok(reporter) => reporter,
        Err(error) => {
            tracing::error!(%error, "standard output or standard error is closed, so nobody would hear of the rank");
            return exit::USAGE;
        }
    };
    prepare_process(&reporter);
    // An agent that is gone cannot account for this process's slot, so the process must not outlive it.
    let span = log::rank_span(launch);
    let Ok(input) = standard_input() else {
        tracing::error!("standard input is closed: there is no agent");
        return exit::AGENT_LOST;
    };
    let commands = Commands::listen(input, Fence::of_launch(), move || {
        let _entered = span.enter();
        tracing::warn!("standard input has ended: the agent is gone");
        c10d::exit_now(exit::AGENT_LOST)
    });
    run_in(launch, reporter, commands)
}

/// Runs a rank in a prepared process, and returns what would be its exit status.
pub fn run_in(launch: &Launch, reporter: Arc<Reporter>, commands: Rc<Commands>) -> i32 {
    let span = log::rank_span(launch);
    let _entered = span.enter();
    commands.fence().begin(launch.lease_until_ns.map(Duration::from_nanos));
    let agent = Agent { reporter, commands, beacon: Beacon::light(&launch.work_dir) };
    match execute(launch, &agent) {
        Ok(()) => exit::SUCCESS,
        Err(error) => {
            fail(&error, launch.rank, &agent.reporter);
            exit::FAILED
        }
    }
}

fn execute(launch: &Launch, agent: &Agent) -> Result<(), TrainerError> {
    let threads = i32::try_from(launch.threads).unwrap_or(i32::MAX).max(1);
    tch::set_num_threads(threads);
    memory::steps_are(None);
    let device = device::of_launch(launch)?;
    match &launch.spec {
        TrialSpec::Train(spec) => train::run(launch, spec, agent, device),
        TrialSpec::Evaluate(spec) => evaluate::run(launch, spec, agent, device),
    }
}

fn fail(error: &TrainerError, rank: u32, reporter: &Reporter) {
    let message = chain(error);
    // As `Debug`, because libtorch's messages hold a stack trace, and a log line is one line.
    tracing::error!(error = ?message, "the rank cannot go on");
    let cause = error.cause(rank);
    explain(&cause, &message, reporter);
    reporter.fail(cause);
}

/// Sends what went wrong in words, where the cause has no room for them: the first line, without libtorch's
/// stack trace.
fn explain(cause: &FailureCause, message: &str, reporter: &Reporter) {
    let advice = if *cause == FailureCause::OutOfMemory { memory::advice(message) } else { None };
    let mut message = message.lines().next().unwrap_or_default().to_owned();
    if let Some(advice) = advice {
        message = format!("{message}: {advice}");
    }
    match cause {
        FailureCause::TrainerExit { .. }
        | FailureCause::CollectiveFailed { .. }
        | FailureCause::OutOfMemory
        | FailureCause::NonFiniteLoss { .. } => reporter.send(&Report::Warning { message }),
        FailureCause::SpecRejected { .. }
        | FailureCause::DataMissing { .. }
        | FailureCause::CheckpointIncompatible { .. }
        | FailureCause::LaunchFailed { .. }
        | FailureCause::WorkerLost
        | FailureCause::Preempted
        | FailureCause::TrainerSignal { .. }
        | FailureCause::Stalled
        | FailureCause::Hung { .. }
        | FailureCause::StorageFull { .. }
        | FailureCause::Unhealthy { .. } => {}
    }
}

/// A panic on any thread ends the process with a reported cause. tch panics on most of libtorch's
/// exceptions, a lack of memory among them.
fn report_panics(reporter: &Arc<Reporter>) {
    let reporter = Arc::clone(reporter);
    panic::set_hook(Box::new(move |info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("no message");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, error = ?text, "panic");
        let cause = cause_of_text(text);
        // tch unwraps errors, so their line ends come escaped.
        let text = text.split("\\n").next().unwrap_or_default();
        explain(
            &cause,
            &format!("the trainer has a defect, or libtorch refused ({place}): {text}"),
            &reporter,
        );
        reporter.fail(cause);
        c10d::exit_now(exit::FAILED)
    }));
}
