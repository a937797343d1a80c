//! What the program says of NVML, and how it is called: the words between it and gpurun.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the program can do, by its first argument.
pub mod verb {
    /// Asks the library that the second argument names, and prints [`Said`](super::Said) as JSON.
    pub const NVML: &str = "nvml";
    /// Is the program of `builtin:hello`.
    pub const HELLO: &str = "hello";
    /// Prints the paths of the libraries that it runs with, each with a NUL byte.
    pub const LIBRARIES: &str = "libraries";
}

/// The answers, or why there are none.
pub type Said = Result<Answers, String>;

/// What NVML says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// Version of the driver.
    pub driver: Version,
    /// The CUDA version that the driver offers.
    pub cuda: Option<(u32, u32)>,
    /// The GPUs that this process may open, in NVML's order.
    pub gpus: Vec<Answer>,
}

/// What NVML says of a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The number of its node.
    pub minor: u32,
    /// `GPU-…`
    pub uuid: Option<String>,
    /// PCI address, as /proc writes it.
    pub pci: String,
    /// Name of the product.
    pub model: String,
    /// The line of products, as `NVIDIA_REQUIRE_*` names it.
    pub brand: Option<String>,
    /// Compute capability.
    pub compute: Option<Version>,
    /// Whether MIG is on.
    pub mig: bool,
    /// The MIG instances that this process may open, in NVML's order.
    pub instances: Vec<Part>,
}

/// What NVML says of a MIG instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its number among those of its GPU, which may have holes.
    pub index: u32,
    /// `MIG-…`
    pub uuid: String,
    /// GPU instance.
    pub gi: u32,
    /// Compute instance.
    pub ci: u32,
    /// As `1g.10gb`.
    pub profile: String,
}

/// A driver version, as `550.163.01`: digits and dots, compared by number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Version(String);

impl Version {
    /// Two to four numbers with dots between them.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<_> = text.split('.').collect();
        let number = |p: &&str| (1..=4).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit());
        ((2..=4).contains(&parts.len()) && parts.iter().all(number)).then(|| Self(text.into()))
    }

    /// The first number, which NVIDIA calls the branch.
    pub fn major(&self) -> u32 {
        self.numbers().first().copied().unwrap_or_default()
    }

    /// Its numbers.
    pub fn numbers(&self) -> Vec<u32> {
        self.0.split('.').filter_map(|p| p.parse().ok()).collect()
    }

    /// As it is in file names.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.0
    }
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or(format!("`{text}` is no version"))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
