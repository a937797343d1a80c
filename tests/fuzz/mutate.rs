//! Inputs out of inputs: bits, numbers, words, pieces of others.

/// The longest input.
pub(super) const MAX_INPUT: usize = 64 << 10;

/// Numbers at which something overflows or ends.
const EDGES: &[u64] = &[0, 1, 7, 8, 255, 256, 511, 512, 513, 4095, 4096, 65535, 65536, 1 << 20, (1 << 27) + 1];

/// The same as text, and more.
const DECIMALS: &[&str] = &[
    "0",
    "1",
    "-1",
    "255",
    "256",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "000000000000000000000000000000000001",
    "1e99",
];

/// Makes inputs.
pub(super) struct Mutator {
    rng: Rng,
    inputs: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
}

impl Mutator {
    pub(super) fn new(rng: u64, inputs: Vec<Vec<u8>>, words: Vec<Vec<u8>>) -> Self {
        Self { rng: Rng(rng), inputs, words }
    }

    /// One more input to start from.
    pub(super) fn add(&mut self, input: Vec<u8>) {
        self.inputs.push(input);
    }

    /// How many there are.
    pub(super) fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// An input with a few changes.
    pub(super) fn next(&mut self) -> Vec<u8> {
        let mut input = self.rng.of(&self.inputs).clone();
        for _ in 0..1 << self.rng.below(4) {
            self.change(&mut input);
        }
        input.truncate(MAX_INPUT);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let rng = &mut self.rng;
        let at = rng.below(input.len() + 1);
        // Small pieces mostly; blocks and more at times.
        let magnitude = rng.below(11);
        let length = rng.below(2 << magnitude).min(input.len() - at);
        let piece = at..at + length;
        match rng.below(12) {
            0 => input[piece].iter_mut().take(1).for_each(|byte| *byte ^= 1 << rng.below(8)),
            1 => input[piece].iter_mut().take(4).for_each(|byte| *byte = rng.next().to_le_bytes()[0]),
            2 => number(rng, &mut input[at..]),
            3 => decimal(rng, input, at),
            4 => drop(input.drain(piece)),
            5 => input.truncate(at),
            6 => insert(input, at, &input.clone()[piece]),
            7 => insert(input, at, &vec![rng.next().to_le_bytes()[0]; length]),
            8 => {
                let block = |n: usize| n / 512 * 512;
                let piece = input[block(at)..block(at + length)].to_vec();
                insert(input, block(rng.below(input.len() + 1)), &piece);
            }
            9 => {
                let other = rng.of(&self.inputs);
                let from = rng.below(other.len() + 1);
                let piece = &other[from..from + rng.below(other.len() - from + 1)];
                insert(input, at, piece);
            }
            _ if self.words.is_empty() => {}
            10 => insert(input, at, rng.of::<Vec<u8>>(&self.words)),
            _ => {
                let word = rng.of(&self.words);
                let end = (at + word.len()).min(input.len());
                input.splice(at..end, word.iter().copied());
            }
        }
    }
}

fn insert(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let at = at.min(input.len());
    input.splice(at..at, piece.iter().copied());
}

/// A number of some width, in either order, at an edge.
fn number(rng: &mut Rng, bytes: &mut [u8]) {
    let edge = *rng.of(EDGES);
    let value = [edge, edge.wrapping_neg(), !edge, u64::MAX >> 1, 1 << 63][rng.below(5)];
    let width = (1 << rng.below(4)).min(bytes.len());
    match rng.below(2) {
        0 => bytes[..width].copy_from_slice(&value.to_le_bytes()[..width]),
        _ => bytes[..width].copy_from_slice(&value.to_be_bytes()[8 - width..]),
    }
}

/// Another number in the place of the digits that come next.
fn decimal(rng: &mut Rng, input: &mut Vec<u8>, at: usize) {
    let Some(start) = input[at..].iter().position(u8::is_ascii_digit).map(|n| at + n) else { return };
    let end = input[start..].iter().position(|b| !b.is_ascii_digit()).map_or(input.len(), |n| start + n);
    input.splice(start..end, rng.of(DECIMALS).bytes());
}

/// SplitMix64: small, and the same everywhere.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`, or 0.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end as u64).max(1)).unwrap_or_default()
    }

    fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}
