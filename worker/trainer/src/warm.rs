//! A trainer that is started before its launch is known: libtorch is loaded and has computed, so that a launch costs
//! neither. It runs one launch after the other for as long as each ends without a failure.
//!
//! Nothing of a trial outlives it here: random numbers are drawn from generators that are seeded before each use, weights
//! and optimizer belong to the trial's own values, threads that were started for it end with it, and the log is switched
//! with the launch. What does stay is libtorch's: its thread pool, its allocator's free blocks, and the kernels that it
//! has prepared. A failure of whatever kind ends the process, because then nobody knows what stayed.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use common::report::{Report, exit};
use tch::{Device, Kind, Tensor};

use crate::agent::{Commands, Order, Reporter, standard_input};
use crate::error::chain;
use crate::fence::Fence;
use crate::{device, rank};

/// Runs launches until the agent closes standard input, or one fails. Returns the exit status.
pub fn serve() -> i32 {
    let (Ok(reporter), Ok(own_log)) = (Reporter::stdout(), io::stderr().as_fd().try_clone_to_owned()) else {
        tracing::error!("standard output or standard error is closed, so nobody would hear of a rank");
        return exit::USAGE;
    };
    rank::prepare_process(&reporter);
    let own_log = File::from(own_log);
    // Warm, idle and without an agent: there is nothing to tell anybody.
    let Ok(input) = standard_input() else { return exit::AGENT_LOST };
    let commands = Commands::listen(input, Fence::idle(), || c10d::exit_now(exit::AGENT_LOST));
    device::before_first_launch();
    compute_once();
    loop {
        commands.fence().rest();
        reporter.send(&Report::Ready);
        let Some(order) = commands.order() else { return exit::AGENT_LOST };
        let status = run(&order, &reporter, &commands);
        if status != exit::SUCCESS {
            return status;
        }
        if let Err(error) = log_to(&own_log) {
            tracing::error!(%error, "cannot leave the log of the trial");
            return exit::FAILED;
        }
    }
}

fn run(order: &Order, reporter: &Arc<Reporter>, commands: &std::rc::Rc<Commands>) -> i32 {
    let log = File::options().create(true).append(true).open(&order.log);
    let switched = log.and_then(|log| log_to(&log));
    if let Err(error) = switched {
        tracing::error!(%error, "cannot log to `{}`", order.log.display());
        return exit::USAGE;
    }
    forget_peak();
    match rank::read_launch(&order.path) {
        Ok(launch) => rank::run_in(&launch, Arc::clone(reporter), std::rc::Rc::clone(commands)),
        Err(error) => {
            tracing::error!("{}", chain(&error));
            exit::USAGE
        }
    }
}

/// Standard output too: it is the log of the libraries that print there.
fn log_to(log: &File) -> io::Result<()> {
    nix::unistd::dup2_stderr(log)?;
    nix::unistd::dup2_stdout(log)?;
    Ok(())
}

/// The peak of resident memory is that of the trial to come. Without the right to reset it, it is that of all trials of
/// this process, which errs on the safe side.
fn forget_peak() {
    if let Err(error) = fs::write("/proc/self/clear_refs", "5") {
        tracing::debug!(%error, "cannot reset the peak of resident memory");
    }
}

/// A small step of a network, so that threads, allocator and kernels are there. Its result is thrown away, and the
/// generators are seeded anew before every later draw.
fn compute_once() {
    let options = (Kind::Float, Device::Cpu);
    let images = Tensor::ones([4, 3, 8, 8], options);
    let labels = Tensor::zeros([4], (Kind::Int64, Device::Cpu));
    let kernel = Tensor::full([8, 3, 3, 3], 0.01, options).set_requires_grad(true);
    let weight = Tensor::full([10, 8], 0.01, options).set_requires_grad(true);
    let hidden = images.conv2d(&kernel, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1).relu();
    let pooled = hidden.mean_dim([2i64, 3].as_slice(), false, Kind::Float);
    let loss = pooled.linear(&weight, None::<Tensor>).cross_entropy_for_logits(&labels);
    loss.backward();
}
