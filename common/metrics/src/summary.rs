//! Statistics of one metric over seeds.
//!
//! The standard deviation is that of a *sample* (division by `n − 1`), and absent for a single seed: a
//! table that prints "± 0" for one seed lies. No confidence intervals: with three seeds they would rest
//! on the normality of three numbers.

/// Why values have no summary.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum SummaryError {
    /// Nothing to summarise.
    #[error("there are no values to summarise")]
    Empty,
    /// One value would decide the whole summary.
    #[error("value {index} is {value}: leave out what is not finite, and say how many values remain")]
    NotFinite {
        /// Position of the first such value.
        index: usize,
        /// The value.
        value: f64,
    },
}

/// Location and spread of `count` finite values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Number of values; at least 1.
    pub count: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation; `None` for a single value.
    pub standard_deviation: Option<f64>,
    /// Least value.
    pub min: f64,
    /// Greatest value.
    pub max: f64,
    /// Middle value, or the mean of the two middle ones.
    pub median: f64,
}

impl Summary {
    /// Summarises the values; their order changes nothing but the last bits of mean and deviation.
    ///
    /// # Errors
    ///
    /// [`SummaryError`] when there are no values or one is not finite.
    pub fn new(values: &[f64]) -> Result<Self, SummaryError> {
        if values.is_empty() {
            return Err(SummaryError::Empty);
        }
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(SummaryError::NotFinite { index, value: values[index] });
        }
        let (mean, squares) = welford(values);
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let count = values.len();
        Ok(Self {
            count,
            mean,
            standard_deviation: (count > 1).then(|| (squares / (count - 1) as f64).sqrt()),
            min: sorted[0],
            max: sorted[count - 1],
            median: sorted[(count - 1) / 2].midpoint(sorted[count / 2]),
        })
    }
}

/// Mean and sum of squared deviations. Equal values give exactly their value and 0, which a mean of
/// sums does not.
fn welford(values: &[f64]) -> (f64, f64) {
    let (mut mean, mut squares) = (0.0, 0.0);
    for (before, value) in values.iter().enumerate() {
        let delta = value - mean;
        mean += delta / (before + 1) as f64;
        squares += delta * (value - mean);
    }
    (mean, squares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deviation_is_that_of_a_sample() {
        let summary = Summary::new(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert_eq!((summary.count, summary.mean, summary.median), (8, 5.0, 4.5));
        assert!((summary.standard_deviation.unwrap() - (32.0_f64 / 7.0).sqrt()).abs() < 1e-15);
        assert_eq!((summary.min, summary.max), (2.0, 9.0));
    }

    #[test]
    fn one_value_has_no_deviation() {
        let summary = Summary::new(&[0.25]).unwrap();
        assert_eq!((summary.count, summary.mean, summary.median), (1, 0.25, 0.25));
        assert_eq!(summary.standard_deviation, None);
    }

    #[test]
    fn equal_values_have_exactly_no_deviation() {
        let summary = Summary::new(&[0.1; 3]).unwrap();
        assert_eq!((summary.mean, summary.standard_deviation), (0.1, Some(0.0)));
    }

    #[test]
    fn a_large_offset_does_not_swallow_the_deviation() {
        // The textbook formula E[x²] − E[x]² gives 0 or a negative number here.
        let summary = Summary::new(&[1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0]).unwrap();
        assert_eq!(summary.mean, 1e9 + 10.0);
        assert!((summary.standard_deviation.unwrap() - 30.0_f64.sqrt()).abs() < 1e-9);
    }

    #[test]
    fn the_median_of_an_odd_number_is_the_middle_value() {
        assert_eq!(Summary::new(&[3.0, 1.0, 2.0]).unwrap().median, 2.0);
    }

    #[test]
    fn nothing_and_what_is_not_finite_are_refused() {
        assert_eq!(Summary::new(&[]), Err(SummaryError::Empty));
        let found = Summary::new(&[1.0, f64::INFINITY]).unwrap_err();
        assert_eq!(found, SummaryError::NotFinite { index: 1, value: f64::INFINITY });
        assert!(Summary::new(&[f64::NAN]).is_err());
    }
}
