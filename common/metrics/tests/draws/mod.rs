//! Numbers that this side and the scripts under `fixtures` draw alike.

/// Integers below 2^31: `SplitMix64` at positions 1.. from the FNV-1a hash of the name.
pub fn draws(name: &str) -> impl Iterator<Item = u32> {
    let hash = |key: u64, byte: u8| (key ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let key = name.bytes().fold(0xcbf2_9ce4_8422_2325, hash);
    (1_u64..).map(move |position| {
        let mut z = key.wrapping_add(position.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 33) as u32
    })
}
