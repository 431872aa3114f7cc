//! The database's own file cut and flipped: it opens with everything that was acknowledged, or it says what is
//! wrong. It never opens with less in silence, and never with something else.

use std::path::Path;

use super::*;

const COMMITTED: u64 = 60;
const EVENTS_EACH: u64 = 5;

/// Commits of events and rows, so that there is more than one tree to lose something of.
fn acknowledge(dir: &Path) -> Store {
    let mut store = Store::open(dir).unwrap();
    for commit in 0..COMMITTED {
        let first = commit * EVENTS_EACH + 1;
        let events = (first..first + EVENTS_EACH).map(event).collect();
        let metrics = vec![report(1, commit, 0.5)];
        store.commit(&Batch { events, metrics, ..Batch::default() }).unwrap();
    }
    store
}

/// Everything that was acknowledged, or why not.
fn read(dir: &Path) -> Result<bool, StoreError> {
    let store = Store::open(dir)?;
    let events = replay(&store)?;
    let rows = store.reader().metrics(TrialId(1))?;
    let steps: Vec<u64> = rows.iter().flat_map(|(_, rows)| rows.iter().map(|row| row.step)).collect();
    Ok(events == (1..=COMMITTED * EVENTS_EACH).map(event).collect::<Vec<_>>()
        && steps == (0..COMMITTED).collect::<Vec<_>>())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// How the database was left.
#[derive(Clone, Copy, Debug)]
enum Left {
    /// By a killed process: sled was not closed.
    Killed,
    /// In good order.
    Closed,
}

/// Damages a copy in `cases` ways. Returns how many opened whole, how many were refused, and of how many only the
/// mark knew.
fn hurt(left: Left, cases: u64, damage: impl Fn(u64, &mut Vec<u8>)) -> (u64, u64, u64) {
    let (open, origin) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let store = acknowledge(open.path());
    match left {
        Left::Killed => copy(open.path(), origin.path()),
        Left::Closed => {
            drop(store);
            drop(Store::open(open.path()).unwrap());
            copy(open.path(), origin.path());
        }
    }
    let (mut whole, mut refused, mut lost) = (0, 0, 0);
    for case in 0..cases {
        let dir = TempDir::new().unwrap();
        copy(origin.path(), dir.path());
        let file = dir.path().join(DATABASE).join(DATABASE_FILE);
        let mut bytes = fs::read(&file).unwrap();
        damage(case, &mut bytes);
        fs::write(&file, &bytes).unwrap();
        match read(dir.path()) {
            Ok(true) => whole += 1,
            Ok(false) => panic!("case {case}: it opened, and what it holds is not what was acknowledged"),
            Err(error) => {
                refused += 1;
                lost += u64::from(matches!(error, StoreError::Lost { .. }));
            }
        }
    }
    eprintln!(
        "{cases} cases of {left:?}: {whole} whole, {refused} refused, {lost} of them because of the mark"
    );
    (whole, refused, lost)
}

/// Numbers that look random and are the same each time.
fn draw(case: u64, below: usize) -> usize {
    let [a, b, c, d, ..] = Digest::of(&case.to_le_bytes()).0;
    u32::from_le_bytes([a, b, c, d]) as usize % below
}

/// sled opens what a killed process left with whatever comes before the damage, and says nothing.
#[test]
fn a_database_file_that_was_cut_is_noticed() {
    let cut = |case, bytes: &mut Vec<u8>| {
        let length = bytes.len() * usize::try_from(case).unwrap() / 300;
        bytes.truncate(length);
    };
    let (whole, refused, lost) = hurt(Left::Killed, 300, cut);
    assert!(refused > 0 && lost > 0, "{whole} opened whole, {refused} were refused");
    hurt(Left::Closed, 300, cut);
}

#[test]
fn a_flipped_bit_of_the_database_file_is_noticed() {
    let flip = |case, bytes: &mut Vec<u8>| {
        // Where something is written, not in what was set aside.
        let used = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
        let at = draw(case, used);
        bytes[at] ^= 1 << (case % 8);
    };
    let (whole, refused, lost) = hurt(Left::Killed, 300, flip);
    assert!(refused > 0 && lost > 0, "{whole} opened whole, {refused} were refused");
    hurt(Left::Closed, 300, flip);
}
