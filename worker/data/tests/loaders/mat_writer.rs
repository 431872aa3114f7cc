//! Writes MATLAB v5 files, whole or with a wrong part, in both byte orders.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Little,
    Big,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Compressed,
}

/// A variable, each part of which a test may falsify.
#[derive(Clone, Debug)]
pub struct Variable {
    pub name: &'static str,
    pub class: u32,
    pub axes: Vec<u32>,
    pub data_kind: u32,
    pub data: Vec<u8>,
}

impl Variable {
    pub fn bytes(name: &'static str, axes: &[u32], data: Vec<u8>) -> Self {
        Self { name, class: 9, axes: axes.to_vec(), data_kind: 2, data }
    }
}

fn word(order: Order, value: u32) -> [u8; 4] {
    match order {
        Order::Little => value.to_le_bytes(),
        Order::Big => value.to_be_bytes(),
    }
}

/// A data element with its tag, padded to 8 bytes; small where the format allows it, as MATLAB writes them.
fn element(order: Order, kind: u32, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).unwrap();
    let mut out = Vec::new();
    if (1..=4).contains(&len) {
        out.extend(word(order, len << 16 | kind));
    } else {
        out.extend(word(order, kind));
        out.extend(word(order, len));
    }
    out.extend(data);
    out.resize(out.len().next_multiple_of(8), 0);
    out
}

fn matrix(order: Order, variable: &Variable) -> Vec<u8> {
    let flags = [word(order, variable.class), word(order, 0)].concat();
    let axes: Vec<u8> = variable.axes.iter().flat_map(|&axis| word(order, axis)).collect();
    let body = [
        element(order, 6, &flags),
        element(order, 5, &axes),
        element(order, 1, variable.name.as_bytes()),
        element(order, variable.data_kind, &variable.data),
    ]
    .concat();
    let len = u32::try_from(body.len()).unwrap();
    [word(order, 14).as_slice(), &word(order, len), &body].concat()
}

/// The 128 bytes before the first variable.
pub fn header(order: Order) -> Vec<u8> {
    let mut header = b"MATLAB 5.0 MAT-file, written by a test".to_vec();
    header.resize(124, b' ');
    header.extend(match order {
        Order::Little => [0x00, 0x01, b'I', b'M'],
        Order::Big => [0x01, 0x00, b'M', b'I'],
    });
    header
}

pub fn file(order: Order, packing: Packing, variables: &[Variable]) -> Vec<u8> {
    let mut file = header(order);
    for variable in variables {
        let plain = matrix(order, variable);
        match packing {
            Packing::Plain => file.extend(plain),
            Packing::Compressed => file.extend(compressed(order, &plain)),
        }
    }
    file
}

/// A compressed element around `content`; compressed elements are not padded.
pub fn compressed(order: Order, content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    let data = encoder.finish().unwrap();
    let len = u32::try_from(data.len()).unwrap();
    [word(order, 15).as_slice(), &word(order, len), &data].concat()
}
