//! Metric rows as bytes, in the coordinator's store and in workers' spools.
//!
//! Not JSON, because a diverging loss is NaN or infinite and must be shown as it was. A row is its step and the
//! bits of its value (both `u64`, little-endian), the length of its name (`u16`) and the name.

use super::MetricRow;

/// Rows as bytes.
pub fn encode(rows: &[MetricRow]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(rows.len() * 32);
    for row in rows {
        let name = clipped(&row.name);
        bytes.extend(row.step.to_le_bytes());
        bytes.extend(row.value.to_bits().to_le_bytes());
        bytes.extend(u16::try_from(name.len()).expect("it is clipped to this length").to_le_bytes());
        bytes.extend(name.as_bytes());
    }
    bytes
}

/// The rows that were encoded; none if these bytes are none.
pub fn decode(mut bytes: &[u8]) -> Option<Vec<MetricRow>> {
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        let step = u64::from_le_bytes(take(&mut bytes)?);
        let value = f64::from_bits(u64::from_le_bytes(take(&mut bytes)?));
        let length = usize::from(u16::from_le_bytes(take(&mut bytes)?));
        let (name, rest) = bytes.split_at_checked(length)?;
        let name = str::from_utf8(name).ok()?.to_owned();
        bytes = rest;
        rows.push(MetricRow { step, name, value });
    }
    Some(rows)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

/// No metric has a name of 64 KiB; a message that claims so must stop nobody.
fn clipped(name: &str) -> &str {
    let end = (0..=name.len().min(usize::from(u16::MAX))).rev().find(|&end| name.is_char_boundary(end));
    &name[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(step: u64, name: &str, value: f64) -> MetricRow {
        MetricRow { step, name: name.to_owned(), value }
    }

    #[test]
    fn rows_read_back_to_the_bit() {
        let rows = [
            row(0, "loss", 0.1 + 0.2),
            row(u64::MAX, "kl/conv1", -0.0),
            row(7, "λ", f64::INFINITY),
            row(8, "", f64::NAN),
        ];
        let bits = |rows: &[MetricRow]| -> Vec<_> {
            rows.iter().map(|row| (row.step, row.name.clone(), row.value.to_bits())).collect()
        };
        assert_eq!(bits(&decode(&encode(&rows)).unwrap()), bits(&rows));
    }

    #[test]
    fn rows_that_were_cut_are_refused() {
        let bytes = encode(&[row(1, "loss", 1.0)]);
        for length in 1..bytes.len() {
            assert!(decode(&bytes[..length]).is_none(), "{length}");
        }
    }

    #[test]
    fn an_endless_name_is_clipped_at_a_character() {
        let rows = decode(&encode(&[row(1, &"é".repeat(40_000), 1.0)])).unwrap();
        assert_eq!(rows[0].name.len(), 65_534);
    }
}
