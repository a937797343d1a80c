//! Compressed bytes → a tar's bytes. Recognised by the first bytes, as every engine does: media types are often wrong.

use std::io::{BufRead, Read};

use flate2::bufread::MultiGzDecoder;

use crate::error::{Context, Result};

/// The largest zstd window that is allowed, as a power of two: what decoding may cost in memory.
const MAX_ZSTD_WINDOW: u32 = 27;

/// A reader of the tar in `input`: gzip of one member or many, zstd of one frame or many, or the tar itself.
pub(crate) fn decode<'a>(mut input: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
    let head = input.fill_buf().context(|| "read the start of the layer")?;
    Ok(match head {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(input)),
        // The second is a skippable frame, which may come first (RFC 8878 §3.1.2).
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let mut decoder = zstd::Decoder::with_buffer(input).context(|| "start zstd")?;
            decoder.window_log_max(MAX_ZSTD_WINDOW).context(|| "limit zstd's window")?;
            Box::new(decoder)
        }
        _ => Box::new(input),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn decoded(bytes: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        decode(bytes)?.read_to_end(&mut out).context(|| "decode")?;
        Ok(out)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn each_compression_is_told_by_its_bytes() {
        let text = b"some bytes".repeat(1000);
        assert_eq!(decoded(&text).unwrap(), text);
        assert_eq!(decoded(&gzip(&text)).unwrap(), text);
        assert_eq!(decoded(&zstd::encode_all(&text[..], 1).unwrap()).unwrap(), text);
        assert_eq!(decoded(b"").unwrap(), b"");
    }

    #[test]
    fn streams_of_several_parts_are_read_to_the_end() {
        let (a, b) = (b"first".to_vec(), b"second".to_vec());
        assert_eq!(decoded(&[gzip(&a), gzip(&b)].concat()).unwrap(), b"firstsecond");
        let frame = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        assert_eq!(decoded(&[skippable.clone(), frame(&a), skippable, frame(&b)].concat()).unwrap(), b"firstsecond");
    }

    #[test]
    fn cut_streams_and_huge_windows_are_errors() {
        let text: Vec<u8> = (0..100_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
        for whole in [gzip(&text), zstd::encode_all(&text[..], 1).unwrap()] {
            assert!(decoded(&whole[..whole.len() / 2]).is_err());
        }
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(28).unwrap();
        encoder.long_distance_matching(true).unwrap();
        encoder.write_all(&text).unwrap();
        assert!(decoded(&encoder.finish().unwrap()).is_err());
    }
}
