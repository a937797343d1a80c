//! Which GPUs the workload gets, and why.
//!
//! In: `--gpus` and whether the host has a driver. Out: [`Injection`], or a refusal: nothing is injected yet. Pure.

use serde::Serialize;

use crate::error::{Error, Result};

/// What `--gpus` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gpus {
    /// The option was not given.
    Unasked,
    /// `none`
    None,
    /// `auto`: all if there is a driver.
    Auto,
    /// Anything else, as it was written.
    Spec(String),
}

impl Gpus {
    /// Reads the option's value.
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            None => Self::Unasked,
            Some("none") => Self::None,
            Some("auto") => Self::Auto,
            Some(spec) => Self::Spec(spec.into()),
        }
    }
}

/// The GPUs that are injected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Injection {
    /// One name for each.
    pub devices: Vec<String>,
    /// Why these.
    pub why: &'static str,
    /// What the user may not expect.
    #[serde(skip)]
    pub notice: Option<&'static str>,
}

/// Decides what is injected.
pub fn decide(asked: &Gpus, has_driver: bool) -> Result<Injection> {
    let none = |why, notice| Ok(Injection { devices: Vec::new(), why, notice });
    match asked {
        Gpus::Unasked => none("--gpus was not given", None),
        Gpus::None => none("--gpus none", None),
        Gpus::Auto if !has_driver => none("no NVIDIA driver here", Some("no NVIDIA driver here: running without GPUs")),
        Gpus::Auto | Gpus::Spec(_) => {
            Err(Error::new("GPUs cannot be injected yet").hint("`--gpus none` runs without them"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_injected_is_refused() {
        let decide = |text, driver| decide(&Gpus::parse(text), driver);
        for (text, driver) in [(None, true), (Some("none"), true), (Some("auto"), false)] {
            assert_eq!(decide(text, driver).unwrap().devices, [""; 0]);
        }
        for (text, driver) in [(Some("all"), false), (Some("auto"), true), (Some(""), false), (Some("2"), true)] {
            assert!(decide(text, driver).is_err(), "{text:?}");
        }
    }
}
