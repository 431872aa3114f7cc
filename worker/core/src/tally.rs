//! A number that the coordinator is told of now and then, not each time it grows.

/// Counts, and knows when the count is worth telling: the first time, when it has doubled, and at the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    count: u64,
    /// What the present session was told.
    told: u64,
}

impl Tally {
    /// Counts so many more.
    pub fn add(&mut self, more: u64) {
        self.count += more;
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether it is to be told; once its attempt has `ended`, to the last one.
    pub fn is_due(&self, ended: bool) -> bool {
        self.count > self.told && (ended || self.count / 2 >= self.told)
    }

    /// It was told.
    pub fn tell(&mut self) {
        self.told = self.count;
    }

    /// A session begins, which was told nothing.
    pub fn begin_session(&mut self) {
        self.told = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_told_at_first_when_it_has_doubled_and_at_the_end() {
        let mut tally = Tally::default();
        assert!(!tally.is_due(true), "there is nothing to tell");
        let mut told = Vec::new();
        for _ in 0..100 {
            tally.add(1);
            if tally.is_due(false) {
                tally.tell();
                told.push(tally.count());
            }
        }
        assert_eq!(told, [1, 2, 4, 8, 16, 32, 64]);
        assert!(tally.is_due(true));
        tally.tell();
        assert!(!tally.is_due(true));
        tally.begin_session();
        assert!(tally.is_due(false));
    }
}
