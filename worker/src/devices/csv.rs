//! Lines of `nvidia-smi --format=csv,noheader,nounits`.

/// A line's fields.
pub fn fields(line: &str) -> Vec<&str> {
    line.split(',').map(str::trim).collect()
}

/// A count, or `None` where the GPU has no such figure (`[N/A]`, `[Not Supported]`, `[Unknown Error]`).
pub fn number(field: &str) -> Option<u64> {
    field.parse().ok()
}

/// Whether a field says yes; older drivers count instead.
pub fn is_yes(field: &str) -> bool {
    field.eq_ignore_ascii_case("yes") || number(field).is_some_and(|count| count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_gpu_does_not_count_is_no_zero() {
        assert_eq!(
            fields("0, GPU-1,  NVIDIA H100 80GB HBM3 , 81559"),
            ["0", "GPU-1", "NVIDIA H100 80GB HBM3", "81559"]
        );
        assert_eq!(number("[N/A]"), None);
        assert_eq!(number("12"), Some(12));
        assert!(is_yes("Yes") && is_yes("1") && !is_yes("No") && !is_yes("0") && !is_yes("[N/A]"));
    }
}
