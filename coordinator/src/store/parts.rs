//! Records cut into parts, and put together again.
//!
//! sled moves a page that outgrows a quarter of its segment into a file of its own, and never syncs that file.
//! A page holds 16 entries or so, so entries are kept small enough that none outgrows it. A part's key is its record's
//! key and its number; whether the parts are complete is for the record's checksum to say.

use super::StoreError;

/// Bytes of one part. 17 of them, with keys, stay below a quarter of the 512 KiB segment.
const PART_BYTES: usize = 4 << 10;

const NUMBER_BYTES: usize = 4;

pub(super) fn part_key(key: &[u8], part: u32) -> Vec<u8> {
    [key, &part.to_be_bytes()].concat()
}

/// Parts of a record with their keys, in order; at least one.
pub(super) fn cut<'a>(key: &'a [u8], record: &'a [u8]) -> impl Iterator<Item = (Vec<u8>, &'a [u8])> {
    record.chunks(PART_BYTES).zip(0..).map(|(part, number)| (part_key(key, number), part))
}

/// Key of the record that a part belongs to.
pub(super) fn record_key<'a>(part: &'a [u8], tree: &'static str) -> Result<&'a [u8], StoreError> {
    let length = part.len().checked_sub(NUMBER_BYTES).ok_or(StoreError::ForeignKey { tree })?;
    Ok(&part[..length])
}

/// Whole records from entries in the order of their keys.
pub(super) struct Records<I> {
    entries: I,
    tree: &'static str,
    /// The record whose parts are being read.
    open: Option<(Vec<u8>, Vec<u8>)>,
}

impl<I> Records<I> {
    pub(super) fn new(entries: I, tree: &'static str) -> Self {
        Self { entries, tree, open: None }
    }
}

impl<I, K, V> Iterator for Records<I>
where
    I: Iterator<Item = Result<(K, V), StoreError>>,
    K: AsRef<[u8]>,
    V: AsRef<[u8]>,
{
    type Item = Result<(Vec<u8>, Vec<u8>), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (part, bytes) = match self.entries.next() {
                None => return self.open.take().map(Ok),
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(entry)) => entry,
            };
            let key = match record_key(part.as_ref(), self.tree) {
                Ok(key) => key,
                Err(error) => return Some(Err(error)),
            };
            match &mut self.open {
                Some((open, record)) if open == key => record.extend(bytes.as_ref()),
                open => {
                    let done = open.replace((key.to_vec(), bytes.as_ref().to_vec()));
                    if let Some(done) = done {
                        return Some(Ok(done));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_every_size_come_back_whole_and_in_order() {
        let sizes = [1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES];
        let records: Vec<(Vec<u8>, Vec<u8>)> =
            sizes.iter().zip(1_u8..).map(|(&size, key)| (vec![key; 8], vec![key; size])).collect();
        let parts = records.iter().flat_map(|(key, record)| cut(key, record)).map(Ok);
        let read: Vec<_> = Records::new(parts, "test").map(Result::unwrap).collect();
        assert_eq!(read, records);
    }

    #[test]
    fn no_part_is_larger_than_a_page_can_hold_sixteen_of() {
        let record = vec![0; 1 << 20];
        assert!(cut(b"key", &record).all(|(key, part)| 17 * (key.len() + part.len()) < 512 * 1024 / 4));
    }
}
