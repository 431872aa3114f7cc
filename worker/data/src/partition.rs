//! Divisions of a set of images: validation images, and classes held out as out-of-distribution.
//!
//! Every division is a function of labels and ids alone. It takes no seed, so that all trials of an experiment are
//! fitted to, and judged on, the same images.

use crate::images::Images;
use crate::rng::{Purpose, Stream};

/// Images divided by class.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOut {
    /// Images of the classes that remain, with labels `0..K'` in the order of the original classes.
    pub in_distribution: Images,
    /// Images of the held-out classes, with their original labels.
    pub out_of_distribution: Images,
}

/// Training images divided in two.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidationSplit {
    /// What remains for training.
    pub train: Images,
    /// What was set aside.
    pub validation: Images,
}

/// Why images cannot be divided as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartitionError {
    /// A class to hold out does not exist.
    #[error("class {class} cannot be held out, there are {classes} classes")]
    UnknownClass {
        /// The class.
        class: u8,
        /// Number of classes.
        classes: usize,
    },
    /// A class to hold out is named twice.
    #[error("class {class} is held out twice")]
    RepeatedClass {
        /// The class.
        class: u8,
    },
    /// A classifier needs two classes.
    #[error("{held_out} of {classes} classes are held out, at least two must remain and one be held out")]
    TooFewClasses {
        /// Classes held out.
        held_out: usize,
        /// Number of classes.
        classes: usize,
    },
    /// Both parts of a split must hold an image.
    #[error("{count} of {images} images cannot be set aside for validation")]
    ValidationCount {
        /// Images asked for.
        count: usize,
        /// Images there are.
        images: usize,
    },
}

/// Divides images into those of `classes`, held out as out-of-distribution, and the others.
///
/// # Errors
///
/// [`PartitionError`] when `classes` is empty, repeats or invents a class, or leaves fewer than two.
pub fn hold_out(images: &Images, classes: &[u8]) -> Result<HeldOut, PartitionError> {
    let total = images.classes();
    let mut held = vec![false; total];
    for &class in classes {
        let slot =
            held.get_mut(usize::from(class)).ok_or(PartitionError::UnknownClass { class, classes: total })?;
        if std::mem::replace(slot, true) {
            return Err(PartitionError::RepeatedClass { class });
        }
    }
    let remaining = total - classes.len();
    if classes.is_empty() || remaining < 2 {
        return Err(PartitionError::TooFewClasses { held_out: classes.len(), classes: total });
    }
    let (outside, inside): (Vec<usize>, Vec<usize>) =
        (0..images.len()).partition(|&index| held[usize::from(images.labels()[index])]);
    let new_label = |label: u8| {
        let before = classes.iter().filter(|&&class| class < label).count();
        label - u8::try_from(before).expect("fewer classes are held out than a u8 counts")
    };
    Ok(HeldOut {
        in_distribution: images.select(&inside).relabelled(remaining, new_label),
        out_of_distribution: images.select(&outside),
    })
}

/// Sets `count` training images aside for validation, stratified by class.
///
/// # Errors
///
/// [`PartitionError::ValidationCount`] when a part would be empty.
pub fn split_validation(images: &Images, count: usize) -> Result<ValidationSplit, PartitionError> {
    if count == 0 || count >= images.len() {
        return Err(PartitionError::ValidationCount { count, images: images.len() });
    }
    let (chosen, rest) = stratified(images, count, Purpose::VALIDATION);
    Ok(ValidationSplit { train: images.select(&rest), validation: images.select(&chosen) })
}

/// Indices of `count` images and of the others, both ascending.
///
/// Each class gives its proportional number, rounded by largest remainder (ties to the lower class); within a class
/// those images are taken whose id draws the smallest number.
pub(crate) fn stratified(images: &Images, count: usize, purpose: Purpose) -> (Vec<usize>, Vec<usize>) {
    let quotas = proportional(&images.class_counts(), count);
    let mut by_class: Vec<Vec<(u64, usize)>> = vec![Vec::new(); images.classes()];
    for (index, (&label, &id)) in images.labels().iter().zip(images.ids()).enumerate() {
        let rank = Stream::new(0, purpose, &[u64::from(id)]).u64();
        by_class[usize::from(label)].push((rank, index));
    }
    let mut chosen = vec![false; images.len()];
    for (members, quota) in by_class.iter_mut().zip(quotas) {
        members.sort_unstable();
        for &(_, index) in &members[..quota] {
            chosen[index] = true;
        }
    }
    (0..images.len()).partition(|&index| chosen[index])
}

/// `count` divided in proportion to `sizes`, by largest remainder.
fn proportional(sizes: &[usize], count: usize) -> Vec<usize> {
    let total: usize = sizes.iter().sum();
    let mut quotas: Vec<usize> = sizes.iter().map(|size| size * count / total).collect();
    let mut by_remainder: Vec<usize> = (0..sizes.len()).collect();
    by_remainder.sort_by_key(|&class| (std::cmp::Reverse(sizes[class] * count % total), class));
    let missing = count - quotas.iter().sum::<usize>();
    for &class in &by_remainder[..missing] {
        quotas[class] += 1;
    }
    quotas
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::Shape;

    fn images(labels: &[u8], classes: usize) -> Images {
        let n = labels.len();
        let pixels = (0..n).map(|index| u8::try_from(index % 251).unwrap()).collect();
        let ids = (0..u32::try_from(n).unwrap()).map(|index| 1_000 + index).collect();
        let shape = Shape { channels: 1, height: 1, width: 1 };
        Images::new(shape, classes, 255, pixels, labels.to_vec(), ids).unwrap()
    }

    #[test]
    fn remaining_classes_are_numbered_without_gaps() {
        let held = hold_out(&images(&[0, 1, 2, 3, 4, 1, 3], 5), &[3, 1]).unwrap();
        assert_eq!(held.in_distribution.labels(), [0, 1, 2]);
        assert_eq!(held.in_distribution.ids(), [1000, 1002, 1004]);
        assert_eq!(held.in_distribution.pixels(), [0, 2, 4]);
        assert_eq!(held.in_distribution.classes(), 3);
        assert_eq!(held.out_of_distribution.labels(), [1, 3, 1, 3]);
        assert_eq!(held.out_of_distribution.ids(), [1001, 1003, 1005, 1006]);
        assert_eq!(held.out_of_distribution.classes(), 5);
    }

    #[test]
    fn only_held_out_classes_below_a_label_lower_it() {
        let set = images(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 10);
        for held_out in [0, 8, 9] {
            let held = hold_out(&set, &[held_out]).unwrap();
            assert_eq!(held.in_distribution.labels(), [0, 1, 2, 3, 4, 5, 6, 7, 8], "class {held_out}");
            assert_eq!(held.out_of_distribution.labels(), [held_out]);
        }
    }

    #[test]
    fn impossible_hold_outs_are_refused() {
        let set = images(&[0, 1, 2], 3);
        assert_eq!(hold_out(&set, &[3]), Err(PartitionError::UnknownClass { class: 3, classes: 3 }));
        assert_eq!(hold_out(&set, &[1, 1]), Err(PartitionError::RepeatedClass { class: 1 }));
        assert_eq!(hold_out(&set, &[]), Err(PartitionError::TooFewClasses { held_out: 0, classes: 3 }));
        assert_eq!(hold_out(&set, &[0, 2]), Err(PartitionError::TooFewClasses { held_out: 2, classes: 3 }));
    }

    #[test]
    fn a_validation_split_is_stratified_and_loses_no_image() {
        let labels: Vec<u8> = (0..200).map(|index| if index % 4 == 0 { 1 } else { 0 }).collect();
        let set = images(&labels, 2);
        let split = split_validation(&set, 41).unwrap();
        assert_eq!(split.validation.class_counts(), [31, 10]);
        let mut ids: Vec<u32> = split.train.ids().iter().chain(split.validation.ids()).copied().collect();
        ids.sort_unstable();
        assert_eq!(ids, set.ids());
    }

    #[test]
    fn the_choice_follows_the_ids_and_not_the_positions() {
        let set = images(&[0; 50], 1);
        let backwards: Vec<usize> = (0..50).rev().collect();
        let mut forward = split_validation(&set, 10).unwrap().validation.ids().to_vec();
        let mut reversed = split_validation(&set.select(&backwards), 10).unwrap().validation.ids().to_vec();
        forward.sort_unstable();
        reversed.sort_unstable();
        assert_eq!(forward, reversed);
        assert_ne!(
            forward,
            (1_000..1_010).collect::<Vec<u32>>(),
            "the first images would be a biased choice"
        );
    }

    #[test]
    fn a_validation_split_with_an_empty_part_is_refused() {
        let set = images(&[0, 1], 2);
        for count in [0, 2, 3] {
            let refused = Err(PartitionError::ValidationCount { count, images: 2 });
            assert_eq!(split_validation(&set, count), refused);
        }
    }

    #[test]
    fn quotas_add_up_and_are_within_one_of_proportional() {
        for count in 0..=60 {
            let sizes = [7, 0, 13, 20, 20];
            let quotas = proportional(&sizes, count);
            assert_eq!(quotas.iter().sum::<usize>(), count);
            for (quota, size) in quotas.iter().zip(sizes) {
                assert!(*quota <= size);
                assert!((quota * 60).abs_diff(size * count) < 60, "{quotas:?} of {count}");
            }
        }
    }
}
