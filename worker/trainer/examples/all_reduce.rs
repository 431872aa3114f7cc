//! Times of all-reduces of 25 MB between two ranks, for `cargo xtask bench ddp`: prints those of rank 0 as JSON, in seconds.
//!
//! Its arguments are the numbers of all-reduces to warm up and to count; it starts the other rank itself.

use std::env;
use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use c10d::{GlooOptions, Network, ProcessGroup, Rank, ReduceOp, Store};
use nix::time::{ClockId, clock_gettime};
use tch::{Device, Kind, Tensor};

/// A bucket of gradients, in single precision.
const ELEMENTS: i64 = 25_000_000 / 4;

const TIMEOUT: Duration = Duration::from_secs(60);

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (counts, port) = arguments.split_at(arguments.len().min(2));
    let [warm_up, steps] = [0, 1].map(|index| counts.get(index).and_then(|count| count.parse().ok()));
    let (Some(warm_up), Some(steps)) = (warm_up, steps) else {
        return Err("usage: all_reduce WARM_UP STEPS".into());
    };
    tch::set_num_threads(1);
    match port.first() {
        None => first(&arguments, warm_up, steps),
        Some(port) => {
            measure(&Store::connect(rank(1)?, "127.0.0.1", port.parse()?, TIMEOUT)?, 1, warm_up, steps)
                .map(|_| ())
        }
    }
}

fn rank(index: usize) -> Result<Rank, Failure> {
    Rank::new(index, 2).ok_or_else(|| "there is no such rank".into())
}

fn first(arguments: &[String], warm_up: usize, steps: usize) -> Result<(), Failure> {
    let store = Store::host(rank(0)?, ([127, 0, 0, 1], 0).into(), TIMEOUT)?;
    let port = store.port().to_string();
    let mut other = Command::new(env::current_exe()?).args(arguments).arg(port).spawn()?;
    let times = measure(&store, 0, warm_up, steps)?;
    let status = other.wait()?;
    if !status.success() {
        return Err(format!("the other rank failed ({status})").into());
    }
    let of = |clock: usize| {
        let pairs = times.windows(2).map(|pair| pair[1][clock].saturating_sub(pair[0][clock]));
        pairs.map(|time| time.as_secs_f64()).collect::<Vec<f64>>()
    };
    serde_json::to_writer(std::io::stdout(), &serde_json::json!({ "wall": of(0), "processor": of(1) }))?;
    Ok(std::io::stdout().flush()?)
}

/// When each all-reduce that counts began, and when the last ended, by both clocks.
fn measure(store: &Store, index: usize, warm_up: usize, steps: usize) -> Result<Vec<[Duration; 2]>, Failure> {
    let network = Network::Host("127.0.0.1".to_owned());
    let options = GlooOptions { store, prefix: "bench", rank: rank(index)?, timeout: TIMEOUT, network };
    let group = ProcessGroup::gloo(&options)?;
    let gradients = Tensor::ones([ELEMENTS], (Kind::Float, Device::Cpu));
    let mut begun = Vec::new();
    for step in 0..=warm_up + steps {
        if step >= warm_up {
            let clocks = [ClockId::CLOCK_MONOTONIC, ClockId::CLOCK_PROCESS_CPUTIME_ID];
            begun.push([clock_gettime(clocks[0])?, clock_gettime(clocks[1])?].map(Duration::from));
        }
        group.all_reduce(&gradients, ReduceOp::Avg)?;
    }
    Ok(begun)
}
