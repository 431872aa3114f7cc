//! How much the members of an ensemble differ, without labels.
//!
//! Diversity that needs labels, because it is about errors, is in [`ErrorDiversity`](crate::ErrorDiversity).
//! Whether diversity is *good* is not decided here: an ensemble of bad networks is diverse.

use crate::classification::PROBABILITY_FLOOR;
use crate::predictions::{Predictions, Sample, argmax};

/// Mean difference between two members, over pairs of members and over samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Diversity {
    /// Probability that two members predict different classes; 0 to 1.
    pub disagreement: f64,
    /// `KL(p_i ‖ p_j)` in nats, over ordered pairs `i ≠ j`, logarithms floored at [`PROBABILITY_FLOOR`].
    pub pairwise_kl: f64,
}

impl Diversity {
    /// Compares every pair of members; `None` for a single one, which has no pair.
    pub fn new(predictions: &Predictions<'_>) -> Option<Self> {
        let shape = predictions.shape();
        if shape.members < 2 {
            return None;
        }
        let mut sums = Sums {
            agreeing: 0,
            kl: 0.0,
            votes: vec![0; shape.classes],
            mass: vec![0.0; shape.classes],
            log_mass: vec![0.0; shape.classes],
        };
        predictions.for_each_sample(|_, sample| sums.add(&sample));
        let ordered_pairs = (shape.members * (shape.members - 1)) as f64;
        let comparisons = ordered_pairs * shape.samples as f64;
        Some(Self {
            disagreement: 1.0 - sums.agreeing as f64 / comparisons,
            // Rounding may leave −1e-17 where the members are equal.
            pairwise_kl: (sums.kl / comparisons).max(0.0),
        })
    }
}

/// Sums over samples, and buffers of one sample.
struct Sums {
    agreeing: u64,
    kl: f64,
    votes: Vec<u64>,
    mass: Vec<f64>,
    log_mass: Vec<f64>,
}

impl Sums {
    /// Costs `J·K` and not `J²·K`: `Σ_ij p_i·(ln p_i − ln p_j) = J Σ_i p_i·ln p_i − (Σ_i p_i)·(Σ_j ln p_j)`.
    fn add(&mut self, sample: &Sample<'_>) {
        self.votes.fill(0);
        self.mass.fill(0.0);
        self.log_mass.fill(0.0);
        let (mut members, mut own) = (0.0, 0.0);
        for row in sample.members() {
            members += 1.0;
            self.votes[argmax(row)] += 1;
            for ((p, mass), log_mass) in row.iter().zip(&mut self.mass).zip(&mut self.log_mass) {
                let log = p.max(PROBABILITY_FLOOR).ln();
                own += p * log;
                *mass += p;
                *log_mass += log;
            }
        }
        let cross: f64 = self.mass.iter().zip(&self.log_mass).map(|(mass, log)| mass * log).sum();
        self.kl += members * own - cross;
        self.agreeing += self.votes.iter().map(|votes| votes * votes.saturating_sub(1)).sum::<u64>();
    }
}

/// Why members' vectors have no mean cosine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CosineError {
    /// One vector has no pair.
    #[error("a pairwise cosine needs at least two members, {members} given")]
    TooFewMembers {
        /// Number of members.
        members: usize,
    },
    /// The values cannot be cut in equal vectors.
    #[error("{values} values cannot be cut in {members} vectors of equal length")]
    NotDivisible {
        /// Number of values.
        values: usize,
        /// Number of members.
        members: usize,
    },
    /// A vector of norm 0, infinity or NaN has no direction.
    #[error("the vector of member {member} has no direction: its norm is not positive and finite")]
    NoDirection {
        /// The member.
        member: usize,
    },
}

/// Mean cosine over pairs of members, of their weights or of their decoded fast weights.
///
/// Shapes: `vectors` is `[J, D]`, row-major.
///
/// Units: −1 to 1; 1 when all members are the same up to scale.
///
/// # Errors
///
/// [`CosineError`].
pub fn mean_pairwise_cosine(vectors: &[f64], members: usize) -> Result<f64, CosineError> {
    if members < 2 {
        return Err(CosineError::TooFewMembers { members });
    }
    if !vectors.len().is_multiple_of(members) {
        return Err(CosineError::NotDivisible { values: vectors.len(), members });
    }
    let width = vectors.len() / members;
    let mut sum_of_units = vec![0.0; width];
    for member in 0..members {
        let vector = &vectors[member * width..(member + 1) * width];
        let norm = vector.iter().map(|v| v * v).sum::<f64>().sqrt();
        if norm <= 0.0 || !norm.is_finite() {
            return Err(CosineError::NoDirection { member });
        }
        for (sum, value) in sum_of_units.iter_mut().zip(vector) {
            *sum += value / norm;
        }
    }
    // |Σ u_i|² = J + Σ_{i≠j} u_i·u_j.
    let square: f64 = sum_of_units.iter().map(|v| v * v).sum();
    let members = members as f64;
    Ok((square - members) / (members * (members - 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predictions::Shape;

    fn diversity(members: usize, samples: usize, probabilities: Vec<f64>) -> Option<Diversity> {
        let classes = probabilities.len() / members / samples;
        let ids: Vec<u64> = (0..samples as u64).collect();
        let shape = Shape { members, samples, classes };
        Diversity::new(&Predictions::new(shape, probabilities, ids).unwrap())
    }

    #[test]
    fn one_member_has_no_diversity() {
        assert_eq!(diversity(1, 1, vec![0.5, 0.5]), None);
    }

    #[test]
    fn equal_members_have_exactly_none() {
        let found = diversity(3, 1, [0.2, 0.5, 0.3].repeat(3)).unwrap();
        assert_eq!(found.disagreement, 0.0);
        assert!(found.pairwise_kl < 1e-15);
    }

    #[test]
    fn disagreement_is_over_pairs_and_not_over_votes() {
        // Votes 0, 0, 1: two of three pairs disagree.
        let found = diversity(3, 1, vec![0.9, 0.1, 0.9, 0.1, 0.1, 0.9]).unwrap();
        assert!((found.disagreement - 2.0 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn kl_is_taken_in_both_directions() {
        let (p, q): ([f64; 2], [f64; 2]) = ([0.9, 0.1], [0.5, 0.5]);
        let kl = |a: [f64; 2], b: [f64; 2]| -> f64 { a.iter().zip(b).map(|(a, b)| a * (a / b).ln()).sum() };
        let found = diversity(2, 1, vec![0.9, 0.1, 0.5, 0.5]).unwrap();
        assert!((found.pairwise_kl - (kl(p, q) + kl(q, p)) / 2.0).abs() < 1e-15);
    }

    #[test]
    fn kl_of_disjoint_members_is_the_floor_and_not_infinity() {
        let found = diversity(2, 1, vec![1.0, 0.0, 0.0, 1.0]).unwrap();
        assert!((found.pairwise_kl + PROBABILITY_FLOOR.ln()).abs() < 1e-12);
    }

    #[test]
    fn cosine_is_of_direction_only() {
        let cosine = |vectors: &[f64]| mean_pairwise_cosine(vectors, 2).unwrap();
        assert!((cosine(&[1.0, 2.0, 3.0, 6.0]) - 1.0).abs() < 1e-15);
        assert!((cosine(&[1.0, 0.0, 0.0, 5.0])).abs() < 1e-15);
        assert!((cosine(&[1.0, -1.0, -2.0, 2.0]) + 1.0).abs() < 1e-15);
        // Three vectors at 0°, 90°, 90°: pairs 0, 0, 1.
        let three = mean_pairwise_cosine(&[1.0, 0.0, 0.0, 1.0, 0.0, 2.0], 3).unwrap();
        assert!((three - 1.0 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn vectors_without_direction_or_pair_are_refused() {
        assert_eq!(mean_pairwise_cosine(&[1.0], 1), Err(CosineError::TooFewMembers { members: 1 }));
        let found = mean_pairwise_cosine(&[1.0, 2.0, 3.0], 2);
        assert_eq!(found, Err(CosineError::NotDivisible { values: 3, members: 2 }));
        let found = mean_pairwise_cosine(&[1.0, 2.0, 0.0, 0.0], 2);
        assert_eq!(found, Err(CosineError::NoDirection { member: 1 }));
        assert_eq!(mean_pairwise_cosine(&[], 2), Err(CosineError::NoDirection { member: 0 }));
    }
}
