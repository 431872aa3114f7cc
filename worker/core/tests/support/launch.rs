//! A launch for tests, of this crate and of the agent's.

use common::session::Launch;
use common::spec::{RunPolicy, TrialSpec};
use common::{AttemptId, grid};

/// What a launch is to train: told apart from others by nothing.
const GRID: &str = "name = \"one\"\nmodels = [\"wrn-10-1\"]\nseeds = [0]\ndata = [\"digits\"]\n\
                    [recipe]\nepochs = 1\nbatch-size = 32\n[[method]]\nkind = \"deterministic\"\n";

/// A train trial with so many ranks.
fn train(world_size: u32) -> TrialSpec {
    let mut spec = grid::parse(GRID).expect("a grid").trials.swap_remove(0).spec;
    if let TrialSpec::Train(train) = &mut spec {
        train.world_size = world_size;
    }
    spec
}

/// A launch of `ranks` ranks from `first_rank` on.
pub fn launch(attempt: AttemptId, first_rank: u32, ranks: u32, world_size: u32) -> Launch {
    let spec = train(world_size);
    Launch {
        attempt,
        key: spec.key(),
        label: "train".to_owned(),
        spec,
        policy: RunPolicy::default(),
        first_rank,
        ranks,
        world_size,
        restore: Vec::new(),
        networks: Vec::new(),
    }
}
