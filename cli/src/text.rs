//! Text for terminals: aligned columns, durations, bars.

use std::time::Duration;

/// Columns aligned to the left, two spaces apart, under a heading.
pub fn columns<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = heading.map(|text| text.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = aligned(heading, widths);
    for row in rows {
        text.push_str(&aligned(row.each_ref().map(String::as_str), widths));
    }
    text
}

fn aligned<const N: usize>(cells: [&str; N], widths: [usize; N]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        line.push_str(&format!("{cell:<width$}  "));
    }
    format!("{}\n", line.trim_end())
}

/// A duration in its two largest units, like `1h 04m`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// Time since or between two moments in milliseconds; empty if either is unknown (0).
pub fn between(from_ms: u64, to_ms: u64) -> String {
    if from_ms == 0 || to_ms < from_ms {
        String::new()
    } else {
        duration(Duration::from_millis(to_ms - from_ms))
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// A size in the unit that suits it.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A number of things, like `1 trial` or `3 trials`.
pub fn count(count: u32, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

/// A bar of `width` characters, filled to `part` of `whole`.
pub fn bar(part: u64, whole: u64, width: usize) -> String {
    let filled = if whole == 0 { 0 } else { (part.min(whole) as usize * width) / whole as usize };
    format!("{}{}", "█".repeat(filled), "░".repeat(width - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".to_owned(), "±bb".to_owned()], ["ccc".to_owned(), String::new()]];
        assert_eq!(columns(["X", "Y"], &rows), "X    Y\na    ±bb\nccc\n");
    }

    #[test]
    fn a_duration_shows_two_units() {
        let text = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!([text(5), text(65), text(3_840), text(90_000)], ["5s", "1m 05s", "1h 04m", "1d 01h"]);
    }

    #[test]
    fn a_bar_is_never_longer_than_its_width() {
        assert_eq!(bar(3, 2, 4), "████");
        assert_eq!(bar(1, 2, 4), "██░░");
        assert_eq!(bar(0, 0, 4), "░░░░");
    }

    #[test]
    fn a_size_is_shown_in_the_unit_that_suits_it() {
        assert_eq!([bytes(17), bytes(2_048), bytes(5 << 20)], ["17 B", "2.0 KiB", "5.0 MiB"]);
    }
}
