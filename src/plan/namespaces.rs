//! Which namespaces a run has of its own. In: the request and host facts. Out: a list of [`Namespace`]. Pure.

use serde::Serialize;

use crate::cli::{Network, Pid};
use crate::host::Host;
use crate::request::Request;

/// A namespace of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Namespace {
    /// Which.
    pub kind: NamespaceKind,
    /// Why.
    pub why: &'static str,
}

/// The kinds of namespaces gpurun makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum NamespaceKind {
    User,
    Mount,
    Pid,
    Uts,
    Network,
}

/// Decides all namespaces.
pub(super) fn decide(request: &Request, host: &Host) -> Vec<Namespace> {
    let mut all = vec![
        Namespace { kind: NamespaceKind::User, why: "the right to mount, without privileges" },
        Namespace { kind: NamespaceKind::Mount, why: "a root file system of its own" },
    ];
    if request.pid == Pid::Private && host.no_proc_of_its_own().is_none() {
        all.push(Namespace { kind: NamespaceKind::Pid, why: "nothing the workload starts outlives it" });
    }
    if request.hostname.is_some() {
        all.push(Namespace { kind: NamespaceKind::Uts, why: "--hostname" });
    }
    if request.network == Network::None {
        all.push(Namespace { kind: NamespaceKind::Network, why: "--network none" });
    }
    all
}
