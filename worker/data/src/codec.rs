//! PNG and JPEG to pictures.

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::resize::Raster;

/// Largest width or height that is decoded; the pictures of the data sets are below 1,024.
const LARGEST: usize = 4_096;

/// Why bytes are no picture, as the decoder says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Undecodable(pub(crate) Box<str>);

/// A PNG in grey or RGB, of 8 bits; palettes are expanded, 16 bits cut, alpha dropped.
pub(crate) fn png(bytes: &[u8]) -> Result<Raster, Undecodable> {
    let failed = |error: png::DecodingError| Undecodable(error.to_string().into());
    let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(failed)?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    check_size(width, height)?;
    let size = reader.output_buffer_size().ok_or_else(|| Undecodable("the picture is too large".into()))?;
    let mut content = vec![0; size];
    let frame = reader.next_frame(&mut content).map_err(failed)?;
    content.truncate(frame.buffer_size());
    let (channels, stored) = match frame.color_type {
        png::ColorType::Grayscale => (1, 1),
        png::ColorType::GrayscaleAlpha => (1, 2),
        png::ColorType::Rgb => (3, 3),
        png::ColorType::Rgba => (3, 4),
        png::ColorType::Indexed => return Err(Undecodable("the palette was not expanded".into())),
    };
    let bytes = content.chunks_exact(stored).flat_map(|pixel| pixel[..channels].iter().copied()).collect();
    Ok(Raster { width, height, channels, bytes })
}

/// A JPEG as RGB, or as grey if it is.
pub(crate) fn jpeg(bytes: &[u8]) -> Result<Raster, Undecodable> {
    let failed = |error: zune_jpeg::errors::DecodeErrors| Undecodable(error.to_string().into());
    let options = DecoderOptions::default()
        .set_max_width(LARGEST)
        .set_max_height(LARGEST)
        .set_strict_mode(true)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(failed)?;
    let (width, height) = decoder.dimensions().ok_or_else(|| Undecodable("there is no size".into()))?;
    let grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    if grey {
        decoder.set_options(options.jpeg_set_out_colorspace(ColorSpace::Luma));
    }
    let bytes = decoder.decode().map_err(failed)?;
    let channels = if grey { 1 } else { 3 };
    if bytes.len() != width * height * channels {
        return Err(Undecodable("the decoder left out pixels".into()));
    }
    Ok(Raster { width, height, channels, bytes })
}

fn check_size(width: usize, height: usize) -> Result<(), Undecodable> {
    if width > LARGEST || height > LARGEST {
        return Err(Undecodable(format!("{width}×{height} is larger than any picture of the sets").into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// `fixtures/decoded.gz`: `fixtures/make_golden_pictures.py`, Pillow 13.0.0 with libjpeg-turbo.
    ///
    /// The decoders round the inverse transform and the enlargement of colours differently: by at most 3 levels within
    /// the picture. In its last two columns and rows libjpeg continues the colours of the picture, this decoder those
    /// of the whole block, when the size is no multiple of 16: there by at most 7.
    #[test]
    fn jpegs_are_decoded_as_by_pillow_up_to_rounding() {
        let mut golden = Vec::new();
        let file = &include_bytes!("../fixtures/decoded.gz")[..];
        flate2::read::GzDecoder::new(file).read_to_end(&mut golden).unwrap();
        let (colour, rest) = golden.split_at(45 * 60 * 3);
        let largest = |file: &[u8], channels: usize, expected: &[u8], inner: bool| {
            let raster = jpeg(file).unwrap();
            assert_eq!((raster.width, raster.height, raster.channels), (60, 45, channels));
            let difference = |at: usize| {
                let (row, column) = (at / (60 * channels), at / channels % 60);
                (inner == (row < 43 && column < 58)).then(|| raster.bytes[at].abs_diff(expected[at]))
            };
            (0..expected.len()).filter_map(difference).max().unwrap()
        };
        let texture = include_bytes!("../fixtures/texture.jpg");
        let inner = largest(texture, 3, colour, true);
        let border = largest(texture, 3, colour, false);
        let grey = largest(include_bytes!("../fixtures/grey.jpg"), 1, &rest[..45 * 60], true);
        assert!(inner <= 3 && border <= 7 && grey <= 1, "{inner}, {border}, {grey}");
    }

    #[test]
    fn what_is_cut_or_no_picture_is_refused() {
        let texture = include_bytes!("../fixtures/texture.jpg");
        for cut in [0, 1, 20, 300, texture.len() / 2] {
            assert!(jpeg(&texture[..cut]).is_err(), "cut at {cut}");
            assert!(png(&texture[..cut]).is_err(), "cut at {cut}");
        }
    }
}
