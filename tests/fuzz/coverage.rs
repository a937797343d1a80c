//! Which code an input reached, by the counters that LLVM puts at every edge (SanitizerCoverage,
//! `-sanitizer-coverage-inline-8bit-counters`).
//!
//! The program tells where they are before `main`, once for each part that was built with them.

#![allow(unsafe_code)] // the interface is C's; only hunts have it

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Eight counters; most are zero most of the time.
type Counters = AtomicU64;

/// The counters, and for each of them which counts were seen, by magnitude.
static PARTS: Mutex<Vec<(&[Counters], Vec<[u8; 8]>)>> = Mutex::new(Vec::new());

/// Called by each part's constructor with its counters.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *const Counters, end: *const Counters) {
    let start = start.wrapping_byte_add(start.addr().next_multiple_of(align_of::<Counters>()) - start.addr());
    // SAFETY: LLVM passes the bounds of a section of the program, which is there as long as the process.
    let counters = unsafe { std::slice::from_raw_parts(start, (end.addr() - start.addr()) / size_of::<Counters>()) };
    let mut parts = PARTS.lock().unwrap();
    if parts.iter().all(|(known, _)| known.as_ptr() != start) {
        parts.push((counters, vec![[0; 8]; counters.len()]));
    }
}

/// Before an input.
pub(super) fn clear() {
    for (counters, _) in PARTS.lock().unwrap().iter() {
        counters.iter().for_each(|eight| eight.store(0, Ordering::Relaxed));
    }
}

/// After it: whether an edge was reached for the first time, or so many times for the first time.
pub(super) fn is_new() -> bool {
    let mut new = false;
    for (counters, seen) in PARTS.lock().unwrap().iter_mut() {
        for (eight, seen) in counters.iter().map(|eight| eight.load(Ordering::Relaxed)).zip(seen) {
            if eight != 0 {
                new |= see(eight.to_ne_bytes(), seen);
            }
        }
    }
    new
}

/// Notes the magnitude of each count.
fn see(counts: [u8; 8], seen: &mut [u8; 8]) -> bool {
    let before = *seen;
    for (count, seen) in counts.into_iter().zip(seen.iter_mut()).filter(|(count, _)| *count > 0) {
        *seen |= 1 << count.ilog2();
    }
    *seen != before
}
