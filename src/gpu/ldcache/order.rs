//! The order in which the loader searches a cache. In: two names. Out: which comes first. Pure.

use std::cmp::Ordering;

/// `_dl_cache_libcmp` (elf/dl-cache.c): runs of digits count by their value.
pub(crate) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        match (a.first(), b.first()) {
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => match number(&mut a).cmp(&number(&mut b))
            {
                Ordering::Equal => {}
                unequal => return unequal,
            },
            (Some(x), _) if x.is_ascii_digit() => return Ordering::Greater,
            (_, Some(y)) if y.is_ascii_digit() => return Ordering::Less,
            (Some(x), Some(y)) if x == y => (a, b) = (&a[1..], &b[1..]),
            (x, y) => return x.map_or(0, |x| x.cast_signed()).cmp(&y.map_or(0, |y| y.cast_signed())),
        }
    }
}

/// glibc counts in an `int`, which wraps.
fn number(text: &mut &[u8]) -> i32 {
    let mut value = 0_i32;
    while let Some(digit) = text.first().filter(|b| b.is_ascii_digit()) {
        value = value.wrapping_mul(10).wrapping_add(i32::from(digit - b'0'));
        *text = &text[1..];
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_as_the_loader_searches() {
        for (a, b, order) in [
            ("libx.so.10", "libx.so.9", Ordering::Greater),
            ("libx.so.9", "libx.so.9", Ordering::Equal),
            ("lib1", "liba", Ordering::Greater),
            ("liba", "lib1", Ordering::Less),
            ("liba", "libab", Ordering::Less),
            ("lib_", "liba", Ordering::Less),
        ] {
            assert_eq!(compare(a.as_bytes(), b.as_bytes()), order, "{a} {b}");
        }
    }
}
