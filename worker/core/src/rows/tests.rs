use super::*;

/// More than a test has.
const WINDOW: usize = usize::MAX;

const PLENTY: u64 = u64::MAX;

/// A disk that does what it is asked for, unless it is full.
#[derive(Default)]
struct Disk {
    pages: BTreeMap<u64, Vec<RowReport>>,
    full: bool,
    writes: usize,
}

impl Disk {
    /// Does everything that the queue asks for.
    fn serve(&mut self, queue: &mut RowQueue) {
        while let Some(order) = queue.order() {
            if let Some(event) = self.perform(order) {
                queue.hear(event);
            }
        }
    }

    fn perform(&mut self, order: SpoolOrder) -> Option<SpoolEvent> {
        match order {
            SpoolOrder::Write { page, reports } => {
                self.writes += 1;
                assert!(self.writes < 10_000, "the disk is asked again and again");
                if self.full {
                    return Some(SpoolEvent::NotWritten { reports, message: "no space".to_owned() });
                }
                let bytes = size_on_disk(&reports);
                assert!(self.pages.insert(page, reports).is_none(), "page {page} is written twice");
                Some(SpoolEvent::Written { bytes })
            }
            SpoolOrder::Read { page } => {
                let reports = self.pages.remove(&page).expect("a page that was written");
                Some(SpoolEvent::Read { reports })
            }
            SpoolOrder::Remove { page } => {
                assert!(self.pages.remove(&page).is_some(), "page {page} is not there");
                None
            }
        }
    }

    fn bytes(&self) -> u64 {
        self.pages.values().map(|reports| size_on_disk(reports)).sum()
    }
}

fn size_on_disk(reports: &[RowReport]) -> u64 {
    reports.iter().map(|report| report.rows.len() as u64 * 30).sum()
}

/// So many rows of one report.
fn rows(count: u64) -> Vec<MetricRow> {
    (0..count).map(|step| MetricRow { step, name: "loss".to_owned(), value: 0.5 }).collect()
}

/// Pushes reports of four rows that take so much memory, and says how many they are.
fn push(queue: &mut RowQueue, disk: &mut Disk, bytes: usize) -> u64 {
    let reports = bytes / size(&RowReport { sequence: 0, rows: rows(4) });
    for _ in 0..reports {
        queue.push(rows(4));
        disk.serve(queue);
    }
    reports as u64
}

/// Tells and acknowledges everything; returns the sequence numbers.
fn drain(queue: &mut RowQueue, disk: &mut Disk) -> Vec<u64> {
    drain_below(queue, disk, usize::MAX)
}

/// The same, with never more memory than so much.
fn drain_below(queue: &mut RowQueue, disk: &mut Disk, memory: usize) -> Vec<u64> {
    let mut told = Vec::new();
    while let Some(report) = queue.next(WINDOW) {
        let sequence = report.sequence;
        told.push(sequence);
        queue.told(sequence);
        queue.acknowledge(sequence);
        disk.serve(queue);
        assert!(queue.memory() <= memory, "{} bytes in memory", queue.memory());
    }
    assert_eq!(queue.first_untold(), None);
    told
}

/// Pushes reports until the disk is to do something; returns it, and how many they are.
fn push_until_ordered(queue: &mut RowQueue) -> (SpoolOrder, u64) {
    let order = (1..100_000).find_map(|pushed| {
        queue.push(rows(4));
        queue.order().map(|order| (order, pushed))
    });
    order.expect("the disk is asked for something")
}

fn warnings(queue: &mut RowQueue) -> Vec<String> {
    let mut warnings = Vec::new();
    queue.warn_of_losses(true, |warning| {
        warnings.push(warning);
        true
    });
    warnings
}

fn dropped(queue: &RowQueue) -> u64 {
    queue.lost.values().map(Tally::count).sum()
}

#[test]
fn a_coordinator_that_answers_costs_no_write() {
    let mut queue = RowQueue::new(Spool::of(PLENTY));
    for sequence in 1..=100_000 {
        queue.push(rows(4));
        assert_eq!(queue.next(WINDOW).map(|report| report.sequence), Some(sequence));
        queue.told(sequence);
        // It is some reports behind.
        queue.acknowledge(sequence.saturating_sub(1_000));
        assert_eq!(queue.order(), None);
    }
}

#[test]
fn what_memory_has_no_room_for_lies_on_the_disk_and_is_told_once_and_in_order() {
    let (mut queue, mut disk) = (RowQueue::new(Spool::of(PLENTY)), Disk::default());
    let mut pushed = 0;
    for _ in 0..40 {
        pushed += push(&mut queue, &mut disk, PAGE);
        assert!(queue.memory() <= 4 * PAGE, "{} bytes in memory", queue.memory());
    }
    assert!(disk.pages.len() >= 36, "{} pages", disk.pages.len());
    assert!(drain_below(&mut queue, &mut disk, 4 * PAGE).into_iter().eq(1..=pushed));
    assert!(disk.pages.is_empty());
    assert_eq!(warnings(&mut queue), [""; 0]);
}

#[test]
fn a_new_session_is_told_everything_that_is_not_acknowledged_again() {
    let (mut queue, mut disk) = (RowQueue::new(Spool::of(PLENTY)), Disk::default());
    let pushed = push(&mut queue, &mut disk, 5 * PAGE);
    while let Some(report) = queue.next(WINDOW) {
        let sequence = report.sequence;
        queue.told(sequence);
    }
    queue.acknowledge(10);
    assert!(queue.first_untold().is_some_and(|untold| untold > 11), "the disk has more to tell");
    queue.begin_session();
    assert_eq!(queue.first_untold(), Some(11));
    assert!(drain(&mut queue, &mut disk).into_iter().eq(11..=pushed));
}

#[test]
fn no_more_is_told_than_the_window_until_some_is_acknowledged() {
    let mut queue = RowQueue::new(Spool::of(PLENTY));
    for _ in 0..10 {
        queue.push(rows(1));
    }
    let tell = |queue: &mut RowQueue| {
        let mut told = Vec::new();
        while let Some(report) = queue.next(3) {
            told.push(report.sequence);
            queue.told(told[told.len() - 1]);
        }
        told
    };
    assert_eq!(tell(&mut queue), [1, 2, 3]);
    assert_eq!(queue.first_untold(), Some(4));
    queue.acknowledge(2);
    assert_eq!(tell(&mut queue), [4, 5]);
}

#[test]
fn what_exceeds_the_share_of_the_disk_is_dropped_oldest_first_and_counted() {
    let limit = 4 * PAGE as u64;
    let (mut queue, mut disk) = (RowQueue::new(Spool::of(limit)), Disk::default());
    let mut pushed = 0;
    for _ in 0..40 {
        pushed += push(&mut queue, &mut disk, PAGE);
        assert!(disk.bytes() <= limit, "{} bytes on the disk", disk.bytes());
    }
    assert!(disk.bytes() > limit / 2, "it is used");
    let lost = dropped(&queue);
    let warning = format!(
        "{lost} metric rows were dropped: the coordinator did not take them for too long, and the worker's disk keeps no \
         more (`spool-mib`)"
    );
    assert_eq!(warnings(&mut queue), [warning]);
    let told = drain(&mut queue, &mut disk);
    assert!(told.is_sorted());
    // Of 40 pages the disk keeps seven.
    let newest = pushed - pushed / 8 + 1;
    let kept = told.iter().copied().skip_while(|&sequence| sequence < newest);
    assert!(kept.eq(newest..=pushed), "the newest are kept");
    assert_eq!(told.len() as u64 * 4 + lost, pushed * 4);
}

#[test]
fn rows_that_a_full_disk_does_not_take_stay_in_memory_and_then_the_oldest_are_dropped() {
    let (mut queue, mut disk) = (RowQueue::new(Spool::of(PLENTY)), Disk { full: true, ..Disk::default() });
    let mut pushed = push(&mut queue, &mut disk, MEMORY - PAGE);
    assert_eq!(warnings(&mut queue), [""; 0]);
    pushed += push(&mut queue, &mut disk, 3 * PAGE);
    assert!(queue.memory() <= MEMORY, "{} bytes", queue.memory());
    assert!(disk.writes <= 2 * MEMORY / PAGE, "{} tries", disk.writes);
    let lost = dropped(&queue);
    assert!(lost > 0);
    let warnings = warnings(&mut queue);
    assert!(warnings[0].starts_with(&format!("{lost} metric rows were dropped")), "{warnings:?}");
    assert!(warnings[0].ends_with("no space"), "{warnings:?}");
    assert_eq!(queue.first_untold(), Some(lost / 4 + 1));

    // With space again, it is found before much is measured, and nothing more is lost.
    disk.full = false;
    pushed += push(&mut queue, &mut disk, 2 * PAGE);
    let lost = dropped(&queue);
    pushed += push(&mut queue, &mut disk, 3 * PAGE);
    assert_eq!(dropped(&queue), lost);
    assert!(queue.memory() <= 4 * PAGE, "{} bytes", queue.memory());
    assert!(drain(&mut queue, &mut disk).into_iter().eq(lost / 4 + 1..=pushed));
}

#[test]
fn without_a_spool_the_disk_is_asked_for_nothing() {
    let (mut queue, mut disk) = (RowQueue::new(Spool::of(0)), Disk::default());
    push(&mut queue, &mut disk, MEMORY + PAGE);
    assert_eq!(disk.writes, 0);
    assert!(queue.memory() <= MEMORY);
    assert!(dropped(&queue) > 0);
}

#[test]
fn what_is_missing_of_a_page_is_counted_and_the_rest_of_it_is_told() {
    let (mut queue, mut disk) = (RowQueue::new(Spool::of(PLENTY)), Disk::default());
    let pushed = push(&mut queue, &mut disk, 6 * PAGE);
    let damaged = disk.pages.values_mut().nth(1).unwrap();
    let gone = damaged.remove(5).sequence;
    // Of another page, or of none.
    damaged[7].sequence = 3;
    let changed = damaged[7].sequence.max(gone + 3);
    let told = drain(&mut queue, &mut disk);
    assert!(
        told.iter().copied().eq((1..=pushed).filter(|&sequence| sequence != gone && sequence != changed))
    );
    let warning = "8 metric rows were lost: the worker's disk damaged them before the coordinator took them";
    assert_eq!(warnings(&mut queue), [warning]);
}

#[test]
fn what_is_not_wanted_any_more_is_removed_also_when_it_is_being_written() {
    let (mut queue, mut disk) = (RowQueue::new(Spool::of(PLENTY)), Disk::default());
    push(&mut queue, &mut disk, 5 * PAGE);
    let (order, _) = push_until_ordered(&mut queue);
    queue.give_up(0);
    assert!(!queue.is_idle());
    queue.hear(disk.perform(order).unwrap());
    disk.serve(&mut queue);
    assert!(disk.pages.is_empty());
    queue.push(rows(4));
    assert_eq!((queue.is_idle(), queue.memory(), queue.first_untold()), (true, 0, None));
    assert_eq!(warnings(&mut queue), [""; 0], "what nobody wants is no loss");
}

#[test]
fn rows_before_a_checkpoint_that_are_given_up_are_counted_wherever_they_lie() {
    for held_up in [false, true] {
        let (mut queue, mut disk) = (RowQueue::new(Spool::of(PLENTY)), Disk::default());
        let mut pushed = push(&mut queue, &mut disk, 6 * PAGE);
        if held_up {
            pushed += push_until_ordered(&mut queue).1;
        }
        queue.told(10);
        let kept = pushed;
        queue.push(rows(4));
        queue.give_up(kept);
        let warning = format!(
            "{} metric rows were dropped: the attempt was given up before the coordinator took them",
            (kept - 10) * 4
        );
        assert_eq!(warnings(&mut queue), [warning]);
    }
}

#[test]
fn whatever_happens_rows_are_told_in_order_and_every_one_that_is_not_is_counted() {
    let mut random = 1_u64;
    let mut draw = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for _ in 0..20 {
        let limit = [0, 2 * PAGE as u64, PLENTY][usize::try_from(draw(3)).unwrap()];
        let (mut queue, mut disk) = (RowQueue::new(Spool::of(limit)), Disk::default());
        let mut waiting = None;
        let (mut pushed, mut acknowledged, mut received) = (0, 0, Vec::new());
        for _ in 0..400 {
            match draw(6) {
                0..=2 => {
                    for _ in 0..draw(2_000) {
                        queue.push(rows(7));
                        pushed += 1;
                    }
                }
                3 => {
                    // The disk may take long.
                    waiting = match waiting.take() {
                        Some(event) => {
                            queue.hear(event);
                            None
                        }
                        None => queue.order().and_then(|order| disk.perform(order)),
                    };
                }
                4 => {
                    for _ in 0..draw(3_000) {
                        let Some(report) = queue.next(WINDOW) else { break };
                        let sequence = report.sequence;
                        queue.told(sequence);
                        if sequence > acknowledged {
                            received.push(sequence);
                            acknowledged = sequence;
                        }
                    }
                    queue.acknowledge(acknowledged.saturating_sub(draw(2) * draw(500)));
                }
                _ => {
                    disk.full = draw(3) == 0;
                    queue.begin_session();
                }
            }
        }
        if let Some(event) = waiting {
            queue.hear(event);
        }
        disk.full = false;
        disk.serve(&mut queue);
        received.extend(drain(&mut queue, &mut disk).into_iter().filter(|&sequence| sequence > acknowledged));
        assert!(received.is_sorted_by(|a, b| a < b));
        // A report that was told and then dropped before it was acknowledged counts as both.
        assert!(received.len() as u64 * 7 + dropped(&queue) >= pushed * 7);
        assert!(disk.pages.is_empty());
    }
}
