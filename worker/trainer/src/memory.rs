//! What a GPU that is out of memory says about the batch.
//!
//! The memory of a training step is what it needs whatever the batch, weights, gradients and momentum, and a part that grows
//! with the images. How far the step that failed had come is known, how far it would have gone is not: so what is told is a
//! number of images that is not exceeded, not one that is sure to fit.

use std::sync::{Mutex, PoisonError};

use c10d::cuda;

/// A training step.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// GPU, among those that the process sees.
    pub device: usize,
    /// Images of this rank.
    pub images: u64,
    /// Bytes of the device that it needs whatever the images.
    pub fixed: u64,
}

/// That of the trial that runs. The hook that hears of a panic knows nothing else of it.
static STEP: Mutex<Option<Step>> = Mutex::new(None);

/// Says which step failures are of from now on; none where memory is not a GPU's.
pub fn steps_are(step: Option<Step>) {
    *STEP.lock().unwrap_or_else(PoisonError::into_inner) = step;
}

/// What to do about a lack of memory that libtorch describes with `text`; `None` where nothing is known.
pub fn advice(text: &str) -> Option<String> {
    let step = (*STEP.lock().unwrap_or_else(PoisonError::into_inner))?;
    let memory = cuda::memory(step.device).ok()?;
    Some(advise(step, memory, asked(text)?))
}

fn advise(step: Step, memory: cuda::Memory, asked: u64) -> String {
    // What others have, this process cannot get.
    let limit = memory.reserved_peak.saturating_add(memory.free);
    let needed = memory.allocated_peak.saturating_add(asked);
    let sizes = format!(
        "with {} images a rank, training needs {} or more of the GPU's memory ({} whatever the batch) and can get {}",
        step.images,
        gibibytes(needed),
        gibibytes(step.fixed),
        gibibytes(limit)
    );
    match most_images(step, limit, needed) {
        0 => format!("{sizes}: not one image fits; take a smaller network, or a GPU with more memory"),
        most => {
            format!("{sizes}: at most {most} images a rank would fit; lower `batch-size`, or take more ranks")
        }
    }
}

/// Images that `limit` bytes hold at most, where `needed` were not enough for those of `step`.
fn most_images(step: Step, limit: u64, needed: u64) -> u64 {
    let of_images = u128::from(needed.saturating_sub(step.fixed).max(1));
    let left = u128::from(limit.saturating_sub(step.fixed));
    let most = left * u128::from(step.images) / of_images;
    // A failure with room to spare is one of fragments: fewer images it is all the same.
    u64::try_from(most).unwrap_or(u64::MAX).min(step.images.saturating_sub(1))
}

/// Bytes that libtorch asked for in vain: `Tried to allocate 2.00 GiB.`
fn asked(text: &str) -> Option<u64> {
    let mut words = text.split("Tried to allocate ").nth(1)?.split_whitespace();
    let number: f64 = words.next()?.parse().ok()?;
    let unit = match words.next()?.trim_end_matches(['.', ',']) {
        "GiB" => 1_u64 << 30,
        "MiB" => 1 << 20,
        "KiB" => 1 << 10,
        "bytes" | "B" => 1,
        _ => return None,
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let bytes = (number * unit as f64) as u64;
    Some(bytes)
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_size_that_was_asked_for_is_read_from_libtorchs_words() {
        let words = |size| {
            format!("CUDA out of memory. Tried to allocate {size}. GPU 0 has a total capacity of 79.18 GiB")
        };
        for (size, bytes) in
            [("2.00 GiB", 2 * GIB), ("20.00 MiB", 20 << 20), ("512.00 KiB", 512 << 10), ("512 bytes", 512)]
        {
            assert_eq!(asked(&words(size)), Some(bytes), "{size}");
        }
        assert_eq!(asked("DefaultCPUAllocator: can't allocate memory"), None);
        assert_eq!(asked("Tried to allocate much memory"), None);
    }

    #[test]
    fn the_images_that_fit_grow_with_what_is_left_beside_the_weights() {
        let step = Step { device: 0, images: 128, fixed: 10 * GIB };
        // 128 images wanted 120 GiB, of which 80 can be had.
        assert_eq!(most_images(step, 90 * GIB, 130 * GIB), 85);
        assert_eq!(most_images(step, 10 * GIB, 130 * GIB), 0);
        assert_eq!(most_images(step, 5 * GIB, 130 * GIB), 0);
        // Fragments, or another process that has gone since: never as many as failed.
        assert_eq!(most_images(step, 90 * GIB, 20 * GIB), 127);
        assert_eq!(most_images(step, 90 * GIB, 5 * GIB), 127);
    }

    #[test]
    fn the_advice_names_the_sizes_and_the_way_out() {
        let step = Step { device: 0, images: 128, fixed: 2 * GIB };
        let memory =
            cuda::Memory { allocated_peak: 78 * GIB, reserved_peak: 78 * GIB, free: GIB, total: 80 * GIB };
        let advice = advise(step, memory, 4 * GIB);
        assert!(advice.contains("82.00 GiB or more") && advice.contains("can get 79.00 GiB"), "{advice}");
        assert!(advice.contains("at most 123 images a rank") && advice.contains("`batch-size`"), "{advice}");
        let hopeless = advise(Step { fixed: 80 * GIB, ..step }, memory, 4 * GIB);
        assert!(hopeless.contains("not one image fits"), "{hopeless}");
    }

    #[test]
    fn on_a_cpu_nothing_is_known() {
        steps_are(None);
        assert_eq!(advice("Tried to allocate 2.00 GiB"), None);
    }
}
