//! Names of CDI devices: `vendor.com/class=name`. In: text. Out: [`Name`]. Pure.

use std::fmt;

use serde::Serialize;

use crate::error::{Error, Result};

/// A device, fully named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct Name {
    /// `vendor.com/class`
    pub kind: String,
    /// The device among those of its kind.
    pub device: String,
}

impl Name {
    /// Parses it; `None` if it is no such name.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, device) = text.split_once('=')?;
        (self::kind(kind).is_ok() && self::device(device).is_ok())
            .then(|| Self { kind: kind.into(), device: device.into() })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.device)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.to_string()
    }
}

/// A vendor and a class (SPEC.md, "Kind"; pkg/parser of the same repository for the characters).
pub(super) fn kind(text: &str) -> Result<()> {
    let bad = |why| Err(Error::new(format!("`{text}` is no kind of device: {why}")));
    let Some((vendor, class)) = text.split_once('/') else { return bad("it is not VENDOR/CLASS") };
    let starts = |part: &str| part.starts_with(|c: char| c.is_ascii_alphabetic());
    let letters = |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    match [vendor, class].iter().all(|part| starts(part) && letters(part) && part.ends_with(is_alphanumeric)) {
        true if vendor.len() > 253 => bad("the vendor has more than 253 letters"),
        true if class.len() > 63 => bad("the class has more than 63 letters"),
        true => Ok(()),
        false => bad("vendor and class are letters, digits, `_`, `-` and `.`, and begin with a letter"),
    }
}

/// The name of a device among those of its kind.
pub(super) fn device(text: &str) -> Result<()> {
    let letters = text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:".contains(c));
    match letters && text.starts_with(is_alphanumeric) && text.ends_with(is_alphanumeric) {
        true => Ok(()),
        false => {
            Err(Error::new(format!("`{text}` is no name of a device: letters, digits, `_`, `-`, `.` and `:` make one")))
        }
    }
}

fn is_alphanumeric(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_a_vendor_a_class_and_a_device() {
        for text in ["nvidia.com/gpu=0", "nvidia.com/gpu=0:1", "foo.bar.baz/foo-bar123.B_az=a", "v/c=GPU-1_x.y:z"] {
            assert_eq!(Name::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "gpu=0",
            "nvidia.com/gpu",
            "nvidia.com/gpu=",
            "/gpu=0",
            "a/b/c=0",
            "1a/b=0",
            "a/1b=0",
            "a/b=-",
            "a/b=0 ",
            "a/b=ü",
        ] {
            assert_eq!(Name::parse(text), None, "{text}");
        }
        assert!(kind(&format!("a/{}", "b".repeat(64))).is_err());
    }
}
