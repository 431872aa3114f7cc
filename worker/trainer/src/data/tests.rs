use datasets::Sharding;

use super::*;

fn digits(held_out: Vec<u32>) -> DataSpec {
    DataSpec {
        set: Name::Digits,
        held_out,
        train_limit: None,
        test_limit: None,
        allow_subset: false,
        validation: 0,
    }
}

/// The two crates keep a table each: `datasets` stays free of the system's words.
#[test]
fn both_tables_of_data_sets_and_corruptions_agree() {
    assert_eq!(Name::ALL.len(), DatasetName::ALL.len());
    for name in Name::ALL {
        let set = dataset(name);
        assert_eq!(name.name(), set.as_str());
        assert_eq!(name.classes() as usize, set.classes(), "{name}");
        let shape = set.shape();
        let axes = [shape.channels, shape.height, shape.width];
        assert_eq!(name.shape().map(|axis| axis as usize), axes, "{name}");
        assert_eq!(name.mirrors(), set.augmentation().flip == Flip::Horizontal, "{name}");
        assert_eq!(name.has_corrupted_files(), CorruptedFiles::folder(set).is_some(), "{name}");
        let features = matches!(set, DatasetName::TwoMoons | DatasetName::Cubic);
        assert_eq!(name.is_images(), !features, "{name}");
    }
    assert_eq!(Corruption::ALL.map(corruption), datasets::Corruption::ALL);
}

#[test]
fn validation_images_are_not_trained_on_and_do_not_depend_on_method_or_seed() {
    let mut data = digits(vec![8, 9]);
    let unused = Path::new("unused");
    assert!(held_out_validation(&data, unused).unwrap().is_none());
    let all = training_plain(&data, unused).unwrap().images().ids().to_vec();
    data.train_limit = Some(500);
    data.validation = 60;
    let train = training_plain(&data, unused).unwrap();
    let held = held_out_validation(&data, unused).unwrap().unwrap();
    assert_eq!((train.images().len(), held.images().len()), (440, 60));
    let mut both = [train.images().ids(), held.images().ids()].concat();
    both.sort_unstable();
    assert_eq!(both, all[..500], "validation images are taken out of the limit");
    assert!(held.images().class_counts().iter().all(|count| (5..=10).contains(count)));
    data.validation = 500;
    assert!(matches!(training_plain(&data, unused), Err(DataProblem::Validation(_))));
}

fn shift(limit: Option<u32>) -> ShiftSpec {
    ShiftSpec {
        source: ShiftSource::Generated,
        corruptions: vec![Corruption::GaussianNoise],
        severities: vec![1, 5],
        limit,
    }
}

#[test]
fn shifted_images_have_the_order_labels_and_ids_of_the_test_images() {
    let mut data = digits(vec![3]);
    data.test_limit = Some(40);
    let unused = Path::new("unused");
    let clean = test(&data, unused).unwrap();
    let shifted = ShiftedTests::open(&data, &shift(Some(30)), unused).unwrap();
    let strong = shifted.batcher(Corruption::GaussianNoise, 5).unwrap();
    assert_eq!(strong.images().labels(), &clean.images().labels()[..30]);
    assert_eq!(strong.images().ids(), &clean.images().ids()[..30]);
    let change = |batcher: &Batcher| {
        let mut batches = [Batch::default(), Batch::default()];
        let indices: Vec<u32> = (0..30).collect();
        clean.fill(&indices, 0, &mut batches[0]);
        batcher.fill(&indices, 0, &mut batches[1]);
        let [clean, noisy] = batches.map(|batch| batch.pixels);
        clean.iter().zip(noisy).map(|(a, b)| (a - b).powi(2)).sum::<f32>() / clean.len() as f32
    };
    let weak = change(&shifted.batcher(Corruption::GaussianNoise, 1).unwrap());
    // Noise of sd 0.04 and 0.1 in units of the set's sd 0.3756, half of it cut at black.
    assert!(weak > 0.002 && weak < 0.02, "{weak}");
    assert!(change(&strong) > 2.0 * weak);
    assert!(matches!(shifted.batcher(Corruption::Fog, 6), Err(DataProblem::Severity(6))));
    assert!(matches!(shifted.batcher(Corruption::Frost, 1), Err(DataProblem::Corruption(_))));
}

#[test]
fn two_moons_have_points_far_outside_and_other_sets_do_not() {
    let mut data = digits(Vec::new());
    let unused = Path::new("unused");
    let refused = out_of_distribution(&data, OodSource::TwoMoonsFar, unused);
    assert!(matches!(refused, Err(DataProblem::NotFar { set: Name::Digits, .. })));
    data.set = Name::TwoMoons;
    let far = out_of_distribution(&data, OodSource::TwoMoonsFar, unused).unwrap();
    let mut batch = Batch::default();
    far.fill(&[0, 1], 0, &mut batch);
    assert_eq!(tensors(&batch, far.shape(), Task::Classification, Device::Cpu).0.size(), [2, 2, 1, 1]);
}

#[test]
fn digits_are_resized_for_mnist_when_the_specification_says_so() {
    let mut data = digits(Vec::new());
    data.set = Name::Mnist;
    let resized = out_of_distribution(&data, OodSource::Resized(Name::Digits), Path::new("unused"));
    let resized = resized.unwrap();
    assert_eq!((resized.images().len(), resized.shape().width), (500, 28));
    assert_eq!(resized.images().max_value(), Some(255));
}

#[test]
fn augmentations_in_another_order_are_refused() {
    let crop = AugmentationSpec::Crop { padding: 1 };
    assert!(augmentation(&[crop, AugmentationSpec::Flip]).is_ok());
    for list in [&[AugmentationSpec::Flip, crop][..], &[crop, crop]] {
        assert!(matches!(augmentation(list), Err(DataProblem::AugmentationOrder)), "{list:?}");
    }
}

#[test]
fn test_and_held_out_images_make_up_the_test_split() {
    let data = digits(vec![8, 9]);
    let inside = test(&data, Path::new("unused")).unwrap();
    let outside = out_of_distribution(&data, OodSource::HeldOut, Path::new("unused")).unwrap();
    assert_eq!(inside.images().len() + outside.images().len(), 500);
    assert!(inside.images().labels().iter().all(|&label| label < 8));
    assert!(outside.images().labels().iter().all(|&label| label >= 8));
    assert_eq!(classes(&data), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn images_of_another_shape_are_no_out_of_distribution_set() {
    let mut data = digits(Vec::new());
    data.set = Name::Mnist;
    let problem = out_of_distribution(&data, OodSource::Set(Name::Digits), Path::new("unused"));
    assert!(matches!(problem, Err(DataProblem::OtherShape { .. })));
}

/// A resumed trial starts in the middle of an epoch and must see what it would have seen.
#[test]
fn prefetching_from_a_step_gives_the_batches_of_that_step() {
    let spec = digits(Vec::new());
    let batcher = test(&spec, Path::new("unused")).unwrap();
    let sharding = Sharding::new(200, 2, 1).unwrap();
    let course = Course { seed: 3, sharding, images: 500, steps_per_epoch: 2, total_steps: 6 };
    let ids = |batches: &[Prepared]| batches.iter().map(|batch| batch.ids().to_vec()).collect::<Vec<_>>();
    let mut seen = Vec::new();
    for preparation in [Preparation::Batches, Preparation::Drafts] {
        let all = |from| Prefetch::start(batcher.clone(), course, from, preparation).collect::<Vec<_>>();
        let whole = all(0);
        assert_eq!((whole.len(), whole[0].ids().len()), (6, 100));
        assert_ne!(whole[0].ids(), whole[2].ids(), "each epoch has an order of its own");
        for from in 1..=6 {
            assert_eq!(all(from), whole[from as usize..]);
        }
        seen.push(ids(&whole));
    }
    assert_eq!(seen[0], seen[1], "where pixels are made changes no order");
}

#[test]
fn a_number_to_predict_is_not_shown_to_the_network() {
    let data = DataSpec { set: Name::Cubic, ..digits(Vec::new()) };
    let unused = Path::new("unused");
    let far = out_of_distribution(&data, OodSource::CubicFar, unused).unwrap();
    let mut batch = Batch::default();
    far.fill(&[0, 1, 2], 0, &mut batch);
    let (inputs, targets) = tensors(&batch, far.shape(), data.set.task(), Device::Cpu);
    assert_eq!((inputs.size(), targets.size()), (vec![3, 1, 1, 1], vec![3]));
    assert_eq!(input_shape(&data), [1, 1, 1]);
    // x³ and y agree up to the noise, in their own units.
    let (mean, std) = target_moments(&data);
    let (x, y) = (inputs.double_value(&[0, 0, 0, 0]) * 2.309_401, targets.double_value(&[0]) * std + mean);
    assert!((x.powi(3) - y).abs() < 15.0, "{x} {y}");
}
