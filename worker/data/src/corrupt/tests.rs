use super::*;

const ONE: NonZeroUsize = NonZeroUsize::MIN;

const SHAPE: Shape = Shape { channels: 3, height: 8, width: 8 };

fn images(shape: Shape, ids: &[u32]) -> Images {
    let pixels = ids
        .iter()
        .flat_map(|id| (0..shape.pixels()).map(move |at| (at as u32 * 37 + id * 101).to_le_bytes()[0]));
    Images::new(shape, 10, 255, pixels.collect(), vec![3; ids.len()], ids.to_vec()).unwrap()
}

#[test]
fn every_name_parses_back_to_itself() {
    for corruption in Corruption::ALL {
        assert_eq!(corruption.as_str().parse(), Ok(corruption));
    }
    assert!("gaussian".parse::<Corruption>().unwrap_err().to_string().contains("gaussian_noise"));
    assert_eq!(Severity::new(0), None);
    assert_eq!(Severity::new(6), None);
    assert_eq!(Severity::new(5).map(Severity::number), Some(5));
}

#[test]
fn a_corrupted_image_depends_on_its_id_and_not_on_its_company() {
    let all = images(SHAPE, &[4, 7, 9]);
    for corruption in Corruption::ALL.into_iter().filter(|corruption| *corruption != Corruption::Frost) {
        for severity in [Severity::ALL[0], Severity::ALL[4]] {
            let corrupted = corrupt(&all, corruption, severity, NonZeroUsize::new(2).unwrap()).unwrap();
            assert_eq!((corrupted.labels(), corrupted.ids()), (all.labels(), all.ids()));
            assert_ne!(corrupted.pixels(), all.pixels(), "{corruption}");
            let alone = corrupt(&all.select(&[2]), corruption, severity, ONE).unwrap();
            assert_eq!(alone.image(0), corrupted.image(2), "{corruption}");
        }
    }
}

#[test]
fn what_the_definition_does_not_cover_is_refused() {
    let first = Severity::ALL[0];
    let refused =
        |shape: Shape, corruption| corrupt(&images(shape, &[1]), corruption, first, ONE).unwrap_err();
    assert_eq!(refused(SHAPE, Corruption::Frost), CorruptError::Photographs);
    let grey = Shape { channels: 1, ..SHAPE };
    for corruption in [Corruption::Spatter, Corruption::Saturate] {
        assert_eq!(refused(grey, corruption), CorruptError::Colour { corruption });
    }
    for shape in [
        Shape { width: 9, ..SHAPE },
        Shape { channels: 2, ..SHAPE },
        Shape { channels: 3, height: 7, width: 7 },
    ] {
        assert_eq!(refused(shape, Corruption::Fog), CorruptError::Shape { shape });
    }
    assert_eq!(corrupt(&crate::two_moons_far(), Corruption::Fog, first, ONE), Err(CorruptError::NoPixels));
}

#[test]
fn digits_are_scaled_to_bytes_before_they_are_corrupted() {
    let shape = Shape { channels: 1, height: 8, width: 8 };
    let digits = Images::new(shape, 10, 16, vec![16; 64], vec![0], vec![0]).unwrap();
    let brighter = corrupt(&digits, Corruption::Brightness, Severity::ALL[0], ONE).unwrap();
    assert_eq!((brighter.max_value(), brighter.pixels()), (Some(255), &[255; 64][..]));
    assert_eq!([0, 1, 8, 15, 16].map(|value| scale_to_byte(value, 16)), [0, 16, 128, 239, 255]);
}
