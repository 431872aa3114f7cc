//! Metric rows of an attempt that the coordinator has not acknowledged, oldest first:
//!
//! ```text
//! head (memory) | pages (disk) | tail (memory)
//! ```
//!
//! The coordinator is told the head; the tail takes what is measured. As long as the head has room, all rows are there. When it has
//! none, the tail goes to the disk a page at a time, and pages come back, oldest first, as acknowledgements make room. So memory
//! holds a few pages however long the coordinator is away, and a coordinator that answers costs no write.
//!
//! The disk gives room, not durability: a page that was read is gone, and what an agent that died had written is of no use. Its
//! attempt is run again from a checkpoint, which was told after the rows before it (see [`crate::ledger`]).
//!
//! A disk that takes no page leaves its rows in memory. What exceeds the bounds of memory and disk is dropped and counted, oldest
//! first.

use std::collections::{BTreeMap, VecDeque};

use common::result::MetricRow;

use crate::tally::Tally;
use crate::{RowReport, SpoolEvent, SpoolOrder};

/// Memory that the rows of one page take, about.
const PAGE: usize = 512 * 1024;

/// What the disk takes of metric rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spool {
    /// Bytes of the disk at most; 0 for none.
    pub bytes: u64,
    /// Memory that the rows of one page take, about. The coordinator may be told two pages before it acknowledges some.
    pub page: usize,
}

impl Default for Spool {
    fn default() -> Self {
        Self::of(0)
    }
}

impl Spool {
    /// Of so many bytes, in pages of the usual size.
    pub fn of(bytes: u64) -> Self {
        Self { bytes, page: PAGE }
    }
}

/// Memory that the rows of an attempt take at most, when the disk does not take them.
pub const MEMORY: usize = 64 * 1024 * 1024;

/// Why rows were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// The spool had its share of the disk.
    SpoolFull,
    /// Memory had no room for what the disk did not take.
    MemoryFull,
    /// What was read from the disk was not what had been written.
    Damaged,
    /// Their attempt was given up after a checkpoint that they come before, so nobody measures them again.
    GivenUp,
}

/// Reports in memory, and what they take of it.
#[derive(Debug, Default)]
struct Reports {
    queue: VecDeque<RowReport>,
    bytes: usize,
}

/// Reports on the disk.
#[derive(Clone, Copy, Debug)]
struct Page {
    number: u64,
    first: u64,
    last: u64,
    rows: u64,
    /// Size of the file; 0 until it is written.
    bytes: u64,
}

/// What the disk was asked for and did not answer yet. One thing at a time, so that pages stay in order.
#[derive(Clone, Copy, Debug)]
enum Busy {
    Writing(Page),
    Reading(Page),
}

/// The rows of an attempt.
#[derive(Debug)]
pub struct RowQueue {
    next_sequence: u64,
    /// Newest sequence number that the present session was told.
    told: u64,
    head: Reports,
    pages: VecDeque<Page>,
    busy: Option<Busy>,
    tail: Reports,
    spool: Spool,
    next_page: u64,
    /// Pages that nobody needs.
    unwanted: Vec<u64>,
    /// Memory of the rows that are to come before the disk is tried again, so that a full one is not tried for each row.
    pause: usize,
    /// Why the disk did not take the last page.
    trouble: Option<String>,
    /// Nothing more is wanted.
    closed: bool,
    lost: BTreeMap<Loss, Tally>,
}

impl RowQueue {
    /// An empty queue.
    pub fn new(spool: Spool) -> Self {
        Self {
            next_sequence: 1,
            told: 0,
            head: Reports::default(),
            pages: VecDeque::new(),
            busy: None,
            tail: Reports::default(),
            spool,
            next_page: 1,
            unwanted: Vec::new(),
            pause: 0,
            trouble: None,
            closed: false,
            lost: BTreeMap::new(),
        }
    }

    /// Rows were measured.
    pub fn push(&mut self, rows: Vec<MetricRow>) {
        if self.closed {
            return;
        }
        let report = RowReport { sequence: self.next_sequence, rows };
        self.pause = self.pause.saturating_sub(size(&report));
        self.tail.push_back(report);
        self.next_sequence += 1;
        self.settle();
    }

    /// Sequence number of the newest report.
    pub fn newest(&self) -> u64 {
        self.next_sequence - 1
    }

    /// A session begins: what is not acknowledged is told again.
    pub fn begin_session(&mut self) {
        self.told = 0;
        self.lost.values_mut().for_each(Tally::begin_session);
    }

    /// The oldest report that the session was not told, if it is in memory already and fewer than `window` that it was told are not
    /// acknowledged.
    pub fn next(&self, window: usize) -> Option<&RowReport> {
        let told = self.in_flight();
        self.head.queue.get(told).filter(|_| told < window)
    }

    /// Reports that the session was told and that are not acknowledged.
    pub fn in_flight(&self) -> usize {
        self.head.queue.partition_point(|report| report.sequence <= self.told)
    }

    /// The session was told reports up to this one.
    pub fn told(&mut self, sequence: u64) {
        self.told = sequence;
    }

    /// Sequence number of the oldest report that the session was not told, wherever it lies.
    pub fn first_untold(&self) -> Option<u64> {
        let (reading, writing) = match self.busy {
            Some(Busy::Reading(page)) => (Some(page.first), None),
            Some(Busy::Writing(page)) => (None, Some(page.first)),
            None => (None, None),
        };
        let head = self.head.queue.get(self.in_flight()).map(|report| report.sequence);
        let tail = self.tail.queue.front().map(|report| report.sequence);
        head.or(reading).or(self.pages.front().map(|page| page.first)).or(writing).or(tail)
    }

    /// The coordinator has every report up to this one.
    pub fn acknowledge(&mut self, sequence: u64) {
        while self.head.queue.front().is_some_and(|report| report.sequence <= sequence) {
            self.head.pop_front();
        }
        self.settle();
    }

    /// Nothing more is wanted of it. Rows of reports up to `kept` that the session was not told are lost; those of later ones are
    /// measured again.
    pub fn give_up(&mut self, kept: u64) {
        let untold = |report: &&RowReport| (self.told + 1..=kept).contains(&report.sequence);
        let memory: u64 = self.head.queue.iter().chain(&self.tail.queue).filter(untold).map(rows_of).sum();
        let busy = self.busy.map(|(Busy::Writing(page) | Busy::Reading(page))| page);
        let disk: u64 =
            self.pages.iter().chain(&busy).filter(|page| page.last <= kept).map(|page| page.rows).sum();
        self.lose(Loss::GivenUp, memory + disk);
        self.close();
    }

    fn close(&mut self) {
        self.closed = true;
        (self.head, self.tail) = (Reports::default(), Reports::default());
        self.unwanted.extend(self.pages.drain(..).map(|page| page.number));
    }

    /// Whether the disk has nothing to answer.
    pub fn is_idle(&self) -> bool {
        self.busy.is_none()
    }

    /// What the disk is to do next.
    pub fn order(&mut self) -> Option<SpoolOrder> {
        if let Some(page) = self.unwanted.pop() {
            return Some(SpoolOrder::Remove { page });
        }
        if self.busy.is_some() {
            return None;
        }
        if self.head.bytes < self.spool.page
            && let Some(page) = self.pages.pop_front()
        {
            self.busy = Some(Busy::Reading(page));
            return Some(SpoolOrder::Read { page: page.number });
        }
        (self.spool.bytes > 0 && self.tail.bytes >= self.spool.page && self.pause == 0)
            .then(|| self.write())?
    }

    /// The disk answers.
    pub fn hear(&mut self, event: SpoolEvent) {
        match (self.busy.take(), event) {
            (Some(Busy::Writing(page)), SpoolEvent::Written { bytes }) => {
                self.trouble = None;
                self.pages.push_back(Page { bytes, ..page });
                self.keep_within_limit();
            }
            (Some(Busy::Writing(_)), SpoolEvent::NotWritten { reports, message }) => {
                self.tail.put_back(reports);
                (self.pause, self.trouble) = (self.spool.page, Some(message));
            }
            (Some(Busy::Reading(page)), SpoolEvent::Read { reports }) => self.take_in(page, reports),
            // An answer to nothing.
            (busy, SpoolEvent::Written { .. } | SpoolEvent::NotWritten { .. } | SpoolEvent::Read { .. }) => {
                self.busy = busy;
            }
        }
        if self.closed {
            self.close();
        }
        self.settle();
    }

    /// Hands each warning of dropped rows that is due to `warn`, until that has no room (false).
    pub fn warn_of_losses(&mut self, ended: bool, mut warn: impl FnMut(String) -> bool) -> bool {
        let trouble = self.trouble.as_deref().unwrap_or("it has no `spool-mib`");
        self.lost.iter_mut().filter(|(_, tally)| tally.is_due(ended)).all(|(loss, tally)| {
            let count = tally.count();
            let room = warn(match loss {
                Loss::SpoolFull => format!(
                    "{count} metric rows were dropped: the coordinator did not take them for too long, and the worker's \
                     disk keeps no more (`spool-mib`)"
                ),
                Loss::MemoryFull => format!(
                    "{count} metric rows were dropped: the coordinator did not take them for too long, and neither did \
                     the worker's disk: {trouble}"
                ),
                Loss::GivenUp => {
                    format!("{count} metric rows were dropped: the attempt was given up before the coordinator took them")
                }
                Loss::Damaged => {
                    format!("{count} metric rows were lost: the worker's disk damaged them before the coordinator took them")
                }
            });
            if room {
                tally.tell();
            }
            room
        })
    }

    /// Whether a warning of dropped rows is due.
    pub fn has_warning(&self, ended: bool) -> bool {
        self.lost.values().any(|tally| tally.is_due(ended))
    }

    /// Memory that its rows take, about.
    pub fn memory(&self) -> usize {
        self.head.bytes + self.tail.bytes
    }

    /// The tail's first page, on its way to the disk.
    fn write(&mut self) -> Option<SpoolOrder> {
        let reports = self.tail.take_page(self.spool.page);
        let (first, last) = (reports.first()?.sequence, reports.last()?.sequence);
        let number = self.next_page;
        self.next_page += 1;
        self.busy = Some(Busy::Writing(Page {
            number,
            first,
            last,
            rows: reports.iter().map(rows_of).sum(),
            bytes: 0,
        }));
        Some(SpoolOrder::Write { page: number, reports })
    }

    /// A page is back. What is missing of it was damaged.
    fn take_in(&mut self, page: Page, reports: Vec<RowReport>) {
        let mut expected = page.first;
        let mut rows = 0;
        for report in reports {
            if (expected..=page.last).contains(&report.sequence) {
                expected = report.sequence + 1;
                rows += rows_of(&report);
                self.head.push_back(report);
            }
        }
        self.lose(Loss::Damaged, page.rows.saturating_sub(rows));
    }

    fn keep_within_limit(&mut self) {
        let mut bytes: u64 = self.pages.iter().map(|page| page.bytes).sum();
        while bytes > self.spool.bytes
            && let Some(page) = self.pages.pop_front()
        {
            bytes -= page.bytes;
            self.unwanted.push(page.number);
            self.lose(Loss::SpoolFull, page.rows);
        }
    }

    /// Drops what memory has no room for, and moves the tail on where nothing on the disk comes before it.
    fn settle(&mut self) {
        while self.memory() > MEMORY
            && let Some(report) = self.head.pop_front().or_else(|| self.tail.pop_front())
        {
            self.lose(Loss::MemoryFull, rows_of(&report));
        }
        while self.pages.is_empty()
            && self.busy.is_none()
            && self.head.bytes < 2 * self.spool.page
            && let Some(report) = self.tail.pop_front()
        {
            self.head.push_back(report);
        }
    }

    fn lose(&mut self, loss: Loss, rows: u64) {
        if rows > 0 && !self.closed {
            self.lost.entry(loss).or_default().add(rows);
        }
    }
}

impl Reports {
    fn push_back(&mut self, report: RowReport) {
        self.bytes += size(&report);
        self.queue.push_back(report);
    }

    fn pop_front(&mut self) -> Option<RowReport> {
        let report = self.queue.pop_front()?;
        self.bytes -= size(&report);
        Some(report)
    }

    /// Takes what fills a page: at least one report.
    fn take_page(&mut self, page: usize) -> Vec<RowReport> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.queue.front()
            && (taken.is_empty() || bytes + size(next) <= page)
        {
            bytes += size(next);
            taken.extend(self.pop_front());
        }
        taken
    }

    /// Puts what was taken before what came since.
    fn put_back(&mut self, reports: Vec<RowReport>) {
        for report in reports.into_iter().rev() {
            self.bytes += size(&report);
            self.queue.push_front(report);
        }
    }
}

fn rows_of(report: &RowReport) -> u64 {
    report.rows.len() as u64
}

/// Memory that a report takes, about.
fn size(report: &RowReport) -> usize {
    let names: usize = report.rows.iter().map(|row| row.name.len()).sum();
    size_of::<RowReport>() + size_of_val(report.rows.as_slice()) + names
}

#[cfg(test)]
mod tests;
