//! Which of the images in a layout or an archive is meant: pure.
//!
//! In: their names as the writer spelled them, and what the user wrote. Out: the ones that are meant.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::reference::ImageRef;

/// An image, or one platform's part of it, by its names.
pub(super) trait Named {
    /// Its names, none if it has none.
    fn names(&self) -> Vec<&str>;
}

/// The items that `wanted` names, or all if they are of one image: whether a name is written in full, in Docker's short
/// form or as the tag alone, in this order.
pub(super) fn pick<'a, T: Named>(items: &'a [T], wanted: Option<&str>) -> Result<Vec<&'a T>> {
    let Some(wanted) = wanted else {
        return one_image(items.iter().collect(), "several images");
    };
    for same in [exactly, in_full, as_tag] {
        let found: Vec<_> = items.iter().filter(|i| i.names().iter().any(|n| same(n, wanted))).collect();
        if !found.is_empty() {
            return one_image(found, &format!("several images called `{wanted}`"));
        }
    }
    let error = Error::new(format!("there is no image called `{wanted}` in it"));
    Err(match list(&items.iter().collect::<Vec<_>>()) {
        names if names.is_empty() => error.hint("its images have no names: leave the tag out"),
        names => error.hint(format!("there is {names}")),
    })
}

fn one_image<'a, T: Named>(items: Vec<&'a T>, several: &str) -> Result<Vec<&'a T>> {
    let first = items.iter().map(|i| i.names()).find(|n| !n.is_empty()).unwrap_or_default();
    let first: HashSet<_> = first.into_iter().collect(); // there may be as many as a document has room for
    let other = |item: &&T| !item.names().is_empty() && !item.names().iter().any(|n| first.contains(n));
    match items.iter().any(other) {
        true => Err(Error::new(format!("there are {several} in it")).hint(format!("name one of {}", list(&items)))),
        false => Ok(items),
    }
}

fn list<T: Named>(items: &[&T]) -> String {
    let mut names: Vec<_> = items.iter().flat_map(|i| i.names()).map(|n| format!("`{}`", n.escape_debug())).collect();
    names.dedup();
    names.truncate(20);
    names.join(", ")
}

fn exactly(name: &str, wanted: &str) -> bool {
    name == wanted
}

fn in_full(name: &str, wanted: &str) -> bool {
    match (ImageRef::parse(name), ImageRef::parse(wanted)) {
        (Ok(ImageRef::Registry(name)), Ok(ImageRef::Registry(wanted))) => name == wanted,
        _ => false,
    }
}

fn as_tag(name: &str, wanted: &str) -> bool {
    name.rsplit_once(':').is_some_and(|(_, tag)| tag == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Named for &[&str] {
        fn names(&self) -> Vec<&str> {
            self.to_vec()
        }
    }

    fn picked(items: &[&[&str]], wanted: Option<&str>) -> String {
        match pick(items, wanted) {
            Ok(found) => found.iter().flat_map(|i| i.names()).collect::<Vec<_>>().join(" "),
            Err(e) => format!("{e}; {}", e.hints().join("; ")),
        }
    }

    #[test]
    fn names_match_in_every_spelling() {
        let full = "docker.io/library/busybox:1";
        for (items, wanted, want) in [
            (&[&["1"][..], &["2"]][..], Some("2"), "2"),
            (&[&[full], &["a/b:2"]], Some("busybox:1"), full),
            (&[&["busybox:1"], &["a/b:2"]], Some(full), "busybox:1"),
            (&[&[full], &["a/b:2"]], Some("1"), full),
            (&[&["x:1", "x:2"]], Some("x:2"), "x:1 x:2"),
            (&[&["1"], &["x:1"]], Some("1"), "1"),
            (&[&["x:1"]], None, "x:1"),
            (&[&["x"], &["x"], &[]], None, "x x"),
            (&[&["x:1"], &["y:1"]], Some("1"), "there are several images called `1` in it; name one of `x:1`, `y:1`"),
            (&[&["x"], &["y"]], None, "there are several images in it; name one of `x`, `y`"),
            (&[&["x"]], Some("z"), "there is no image called `z` in it; there is `x`"),
            (&[&[]], Some("z"), "there is no image called `z` in it; its images have no names: leave the tag out"),
        ] {
            assert_eq!(picked(items, wanted), want, "{items:?} {wanted:?}");
        }
    }
}
