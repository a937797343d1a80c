//! Tars for the tests, block by block, and what is read of them.

use super::{Entry, Reader};
use crate::error::{Context, Result};

/// One header block, with its checksum.
pub(super) fn header(name: &[u8], kind: u8, size: u64, change: impl FnOnce(&mut [u8; 512])) -> Vec<u8> {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..107].copy_from_slice(b"0000644");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(b"00000000012");
    block[156] = kind;
    block[257..263].copy_from_slice(b"ustar\0");
    change(&mut block);
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block.to_vec()
}

pub(super) fn padded(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data.resize(data.len().next_multiple_of(512), 0);
    data
}

pub(super) fn file(name: &[u8], data: &[u8]) -> Vec<u8> {
    [header(name, b'0', data.len() as u64, |_| {}), padded(data)].concat()
}

pub(super) fn pax(kind: u8, records: &[(&str, &[u8])]) -> Vec<u8> {
    let record = |(key, value): &(&str, &[u8])| {
        let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let length = (body.len()..body.len() + 9).find(|n: &usize| n.to_string().len() + body.len() == *n).unwrap();
        [length.to_string().as_bytes(), &body].concat()
    };
    let data: Vec<u8> = records.iter().flat_map(record).collect();
    [header(b"pax", kind, data.len() as u64, |_| {}), padded(&data)].concat()
}

/// Name and content of every entry, holes filled with zeroes.
pub(super) fn read(tar: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>> {
    let (mut reader, mut all) = (Reader::new(tar), Vec::new());
    while let Some(entry) = reader.next()? {
        let mut content = vec![0; usize::try_from(entry.size.min(1 << 20)).unwrap()];
        reader.data(|offset, piece| {
            let at = usize::try_from(offset).unwrap();
            content.get_mut(at..at + piece.len()).context(|| "out of the file")?.copy_from_slice(piece);
            Ok(())
        })?;
        all.push((entry, content));
    }
    Ok(all)
}

pub(super) fn only(tar: &[u8]) -> (Entry, Vec<u8>) {
    let mut all = read(tar).unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}
