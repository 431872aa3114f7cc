//! A simulated machine: a worker's real agent, and the attempts that it started, as the design says they behave.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use common::result::Checkpoint;
use common::session::{AttemptEnd, Launch};
use common::spec::TrialSpec;
use common::timeouts::Timeouts;
use common::{AttemptId, FailureCause};
use worker_core::{Agent, AttemptOrder, Input, RowReport, Settings, Spool, SpoolEvent};

use crate::network::ConnId;

/// The ranks of a share, which keep step with each other.
#[derive(Debug, Default)]
pub struct Ranks {
    /// Whether the group ever stepped together.
    pub met: bool,
    /// Ticks without its peers.
    pub alone: u64,
    pub step: u64,
    pub hung: bool,
    /// When the agent's judge names the rank that hangs, if it does.
    pub named_at: Option<u64>,
    /// Makes no more steps, because it was asked to stop at a checkpoint.
    pub stopping: bool,
}

#[derive(Debug)]
pub enum Stage {
    /// Reads what it starts from; has no processes yet.
    Preparing,
    /// Its processes are alive.
    Training(Ranks),
    /// Its processes are gone; what they left is being stored.
    Storing(AttemptEnd),
}

/// An attempt on this machine.
#[derive(Debug)]
pub struct Share {
    pub launch: Launch,
    pub stage: Stage,
    /// Stands still, because another worker may have been given its trial.
    pub suspended: bool,
    /// When its ranks stand still by themselves, as they were told, and whether they do.
    pub lease: Option<Duration>,
    pub fenced: bool,
    pub rendezvous: Option<String>,
    /// When it stops at a checkpoint, if it was asked to.
    pub yield_at: Option<u64>,
    /// When its processes are gone, if they were told to end.
    pub gone_at: Option<u64>,
    /// Whether they were told to end whatever it costs.
    pub harmed: bool,
    /// A checkpoint that is not stored yet. A newer one takes its place.
    pub upload: Option<Checkpoint>,
}

/// How soon an attempt does what it is told.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Stops at a checkpoint at.
    pub yields: u64,
    /// Its processes are gone at.
    pub gone: u64,
}

impl Share {
    pub fn new(launch: Launch) -> Self {
        Self {
            launch,
            stage: Stage::Preparing,
            suspended: false,
            lease: None,
            fenced: false,
            rendezvous: None,
            yield_at: None,
            gone_at: None,
            harmed: false,
            upload: None,
        }
    }

    pub fn leads(&self) -> bool {
        self.launch.first_rank == 0
    }

    /// Whether all ranks are here.
    pub fn is_whole(&self) -> bool {
        self.launch.ranks == self.launch.world_size
    }

    pub fn trains(&self) -> bool {
        matches!(self.launch.spec, TrialSpec::Train(_))
    }

    /// Slots that its processes hold, or are about to.
    pub fn slots(&self) -> u32 {
        match self.stage {
            Stage::Preparing | Stage::Training(_) => self.launch.ranks,
            Stage::Storing(_) => 0,
        }
    }

    /// Whether its processes must not do anything, by order or by themselves.
    pub fn stands_still(&self) -> bool {
        self.suspended || self.fenced
    }

    /// Whether its processes may make a step.
    pub fn computes(&self) -> bool {
        matches!(self.stage, Stage::Training(_)) && !self.stands_still()
    }

    /// Whether the share can step with its peers: it leads, or it was told where to meet.
    pub fn has_joined(&self) -> bool {
        match &self.stage {
            Stage::Training(ranks) => {
                let can_meet = self.is_whole() || self.rendezvous.is_some();
                !self.stands_still() && !ranks.stopping && !ranks.hung && can_meet
            }
            Stage::Preparing | Stage::Storing(_) => false,
        }
    }

    pub fn ranks(&mut self) -> &mut Ranks {
        match &mut self.stage {
            Stage::Training(ranks) => ranks,
            Stage::Preparing | Stage::Storing(_) => panic!("{} does not train", self.launch.attempt),
        }
    }

    /// As the real one does what the agent tells it.
    pub fn obey(&mut self, now: u64, order: AttemptOrder, pace: Pace) {
        match order {
            AttemptOrder::Rendezvous(address) => self.rendezvous = Some(address),
            AttemptOrder::Suspend => self.suspended = true,
            AttemptOrder::Resume => self.suspended = false,
            // The real one lets it go on if it may have stopped itself.
            AttemptOrder::Lease(until) => (self.lease, self.fenced) = (Some(until), false),
            AttemptOrder::Yield => match &self.stage {
                Stage::Training(ranks) if self.trains() && ranks.met => {
                    self.yield_at.get_or_insert(pace.yields);
                }
                // Where there is nothing to lose, at once.
                Stage::Preparing | Stage::Training(_) => self.gone_at = Some(now),
                Stage::Storing(_) => {}
            },
            AttemptOrder::Stop => match &self.stage {
                Stage::Preparing => self.gone_at = Some(now),
                Stage::Training(_) => {
                    self.harmed = true;
                    // What stands still could not hear that it should end.
                    let gone = if self.stands_still() { now } else { pace.gone };
                    self.gone_at = Some(self.gone_at.map_or(gone, |known| known.min(gone)));
                }
                // What it left is wanted no more.
                Stage::Storing(_) => {
                    self.upload = None;
                    self.stage = Stage::Storing(Err(FailureCause::Preempted));
                }
            },
        }
    }
}

/// A machine. It is off, frozen, or running; what it does takes place at the times of its own clock.
#[derive(Debug)]
pub struct Node {
    /// Its seconds in one of the coordinator's.
    pub rate: f64,
    pub slots: u32,
    pub agent: Agent,
    /// Agents that were started here.
    pub starts: u64,
    /// The connection that the agent dialled last, while it wants it.
    pub link: Option<ConnId>,
    /// Whether the coordinator accepted it, as far as the agent knows.
    pub open: bool,
    pub shares: BTreeMap<AttemptId, Share>,
    /// Pages on its disk, and what the disk has to say, and when.
    pub pages: BTreeMap<(AttemptId, u64), Vec<RowReport>>,
    pub spooled: VecDeque<(u64, AttemptId, SpoolEvent)>,
    /// Every attempt that this agent started.
    pub started: BTreeSet<AttemptId>,
    /// Whether the agent was asked to stop.
    pub leaving: bool,
    /// What an agent that died on this machine left.
    pub remains: BTreeSet<AttemptId>,
    /// Nobody hears it, and it hears nothing, before these times.
    pub mute_until: u64,
    pub deaf_until: u64,
    /// Whether what is sent meanwhile is lost. Otherwise it comes late.
    pub loses: bool,
    /// Most trainers die there before then.
    pub broken_until: u64,
    /// Agent and trainers stand still until then.
    pub frozen_until: u64,
    /// The agent alone stands still until then, and what trainers say meanwhile waits.
    pub asleep_until: u64,
    pub unheard: VecDeque<Input>,
    /// Nothing runs there before then.
    pub off_until: u64,
}

impl Node {
    pub fn new(slots: u32, rate: f64) -> Self {
        Self {
            rate,
            slots,
            agent: agent(slots),
            starts: 1,
            link: None,
            open: false,
            shares: BTreeMap::new(),
            pages: BTreeMap::new(),
            spooled: VecDeque::new(),
            started: BTreeSet::new(),
            leaving: false,
            remains: BTreeSet::new(),
            mute_until: 0,
            deaf_until: 0,
            loses: false,
            broken_until: 0,
            frozen_until: 0,
            asleep_until: 0,
            unheard: VecDeque::new(),
            off_until: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.shares.is_empty() && self.agent.is_empty()
    }

    /// What its own clock says.
    pub fn clock(&self, now: u64) -> Duration {
        Duration::from_micros((now as f64 * self.rate * 1_000.0) as u64)
    }

    /// Whether its processes run.
    pub fn is_live(&self, now: u64) -> bool {
        now >= self.off_until && now >= self.frozen_until
    }

    /// Whether its agent does nothing, though its trainers may.
    pub fn is_asleep(&self, now: u64) -> bool {
        now < self.asleep_until
    }

    /// Ranks whose lease is over as far as they were told stand still.
    pub fn watch_leases(&mut self, now: u64) {
        let clock = self.clock(now);
        for share in self.shares.values_mut() {
            share.fenced = share.lease.is_some_and(|until| until <= clock);
        }
    }

    /// Slots that processes hold.
    pub fn used(&self) -> u32 {
        self.shares.values().map(Share::slots).sum()
    }

    /// The agent and all its processes die. Another agent finds what they left when the machine runs again.
    pub fn crash(&mut self, slots: u32, off_until: u64) {
        let left = std::mem::take(&mut self.shares).into_keys();
        self.remains.extend(left);
        self.pages.clear();
        self.spooled.clear();
        self.unheard.clear();
        self.started.clear();
        self.leaving = false;
        self.slots = slots;
        self.agent = agent(slots);
        self.starts += 1;
        (self.link, self.open) = (None, false);
        (self.frozen_until, self.asleep_until, self.broken_until) = (0, 0, 0);
        self.off_until = off_until;
    }
}

fn agent(slots: u32) -> Agent {
    // What it guesses must not take longer than a simulation does.
    let timeouts = Timeouts::of(Duration::from_millis(100));
    // So that rows of a few steps fill a page.
    let spool = Spool { bytes: 1 << 20, page: 250 };
    Agent::new(Settings {
        slots,
        slots_per_device: 1,
        reconnect_limit: Duration::from_secs(5),
        timeouts,
        spool,
    })
}
