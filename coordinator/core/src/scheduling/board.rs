//! Slots as a decision sees them: what is free where an order can be delivered, and who may take it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::WorkerId;
use common::spec::Requirements;

use crate::Placement;
use crate::state::State;

/// Members in service that have what some trials require.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pool {
    pub(crate) workers: BTreeSet<WorkerId>,
    /// Slots that they offer together.
    pub(crate) offered: u32,
    /// Whether these are all members.
    is_everybody: bool,
}

/// Pools by requirements, found when they are first asked for. Kept as long as the members stay the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pools(BTreeMap<Requirements, Arc<Pool>>);

/// Pools that are remembered. More requirements than this are found anew each time.
const REMEMBERED: usize = 256;

impl Pools {
    /// Members changed.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }

    pub(crate) fn get(&mut self, requires: &Requirements, state: &State) -> Arc<Pool> {
        if let Some(pool) = self.0.get(requires) {
            return Arc::clone(pool);
        }
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        let pool = Arc::new(Pool::of(requires, state));
        self.0.insert(requires.clone(), Arc::clone(&pool));
        pool
    }
}

impl Pool {
    fn of(requires: &Requirements, state: &State) -> Self {
        let mut pool = Self::default();
        for (&id, worker) in &state.workers {
            if worker.traits.meet(requires) && !state.is_barred(id) {
                pool.workers.insert(id);
                pool.offered += worker.slots;
            }
        }
        pool.is_everybody = pool.workers.len() == state.workers.len();
        pool
    }
}

/// Free slots of connected members.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board {
    free: BTreeMap<WorkerId, u32>,
    total: u32,
}

impl Board {
    pub(crate) fn new(free: impl IntoIterator<Item = (WorkerId, u32)>) -> Self {
        let free = free.into_iter().filter(|&(_, slots)| slots > 0).collect::<BTreeMap<_, _>>();
        let total = free.values().sum();
        Self { free, total }
    }

    pub(crate) fn total(&self) -> u32 {
        self.total
    }

    pub(crate) fn on(&self, worker: WorkerId) -> u32 {
        self.free.get(&worker).copied().unwrap_or_default()
    }

    /// Free slots of the workers of `pool`, held or not, in the order of their ids.
    pub(crate) fn within(&self, pool: &Pool) -> impl Iterator<Item = (WorkerId, u32)> {
        let all = pool.is_everybody;
        self.free
            .iter()
            .filter(move |(worker, _)| all || pool.workers.contains(worker))
            .map(|(&w, &slots)| (w, slots))
    }

    /// Every worker that has any.
    pub(crate) fn free(&self) -> impl Iterator<Item = (WorkerId, u32)> {
        self.free.iter().map(|(&worker, &slots)| (worker, slots))
    }

    /// Adds slots that will come.
    pub(crate) fn add(&mut self, worker: WorkerId, slots: u32) {
        *self.free.entry(worker).or_default() += slots;
        self.total += slots;
    }

    /// Gives slots away.
    pub(crate) fn take(&mut self, placement: &Placement) {
        for share in placement.shares() {
            let Some(free) = self.free.get_mut(&share.worker) else {
                continue;
            };
            *free = free.saturating_sub(share.ranks);
            self.total = self.total.saturating_sub(share.ranks);
            if *free == 0 {
                self.free.remove(&share.worker);
            }
        }
    }
}
