//! A CDI spec: the fields of version 1.1.0 of the specification (cncf-tags/container-device-interface, SPEC.md and
//! specs-go/config.go).
//!
//! In: the bytes of a file, JSON or YAML. Out: a checked [`Spec`], or what is wrong with its line. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::check;
use crate::error::{Error, Result};

/// The largest spec that is read: NVIDIA's of eight GPUs with MIG has 1 MB.
pub const MAX_SIZE: u64 = 8 << 20;

/// All that a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Version of the specification, as `0.5.0`.
    pub cdi_version: String,
    /// `vendor.com/class`
    pub kind: String,
    /// Remarks, for whoever knows them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// One or more.
    pub devices: Vec<Device>,
    /// What each of the devices needs beside its own edits.
    #[serde(default, skip_serializing_if = "Edits::is_empty")]
    pub container_edits: Edits,
}

/// One device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    /// Its name, unique among those of its kind.
    pub name: String,
    /// Remarks, for whoever knows them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What it needs.
    #[serde(default)]
    pub container_edits: Edits,
}

/// What is done to a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Edits {
    /// `NAME=value`
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Device nodes.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub device_nodes: Vec<DeviceNode>,
    /// Network interfaces of the host that move into the container.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub net_devices: Vec<NetDevice>,
    /// Files and directories.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Programs of the host that run at some time of the container's life.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    /// Cache and memory bandwidth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<IntelRdt>,
    /// Groups that the process is in; 0 means nothing.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty", alias = "additionalGIDs")]
    pub additional_gids: Vec<u32>,
}

/// A device node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceNode {
    /// Path inside.
    pub path: String,
    /// Path on the host, if it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<String>,
    /// `b`, `c` or `u`, `p`; empty if it is the host's.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Major number; 0 if it is the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub major: Option<i64>,
    /// Minor number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minor: Option<i64>,
    /// Permission bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    /// What the device cgroup allows: of `rwm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<String>,
    /// Owner inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetDevice {
    /// Its name on the host.
    pub host_interface_name: String,
    /// Its name inside.
    pub name: String,
}

/// A mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mount {
    /// Path on the host.
    pub host_path: String,
    /// Path inside.
    pub container_path: String,
    /// Options of mount(8).
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Type of the file system; empty for a bind.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
}

/// A program that other engines run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hook {
    /// When: `createContainer` and others of the runtime spec.
    pub hook_name: String,
    /// The program.
    pub path: String,
    /// Its arguments, with its name.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Its environment.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Seconds that it may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

/// Settings of Intel's resctrl.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, non_snake_case)] // refused, and named as the kernel's documentation names them
pub struct IntelRdt {
    #[serde(default)]
    pub closID: String,
    #[serde(default)]
    pub l3CacheSchema: String,
    #[serde(default)]
    pub memBwSchema: String,
    #[serde(default)]
    pub enableCMT: bool,
    #[serde(default)]
    pub enableMBM: bool,
    #[serde(default, deserialize_with = "list")]
    pub schemata: Vec<String>,
    #[serde(default)]
    pub enableMonitoring: bool,
}

impl Edits {
    /// Whether they do nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Reads a spec. JSON is read as the YAML that it is. Fields that the specification does not have, repeated ones, and
/// features that are newer than the version the file names are errors.
pub fn parse(bytes: &[u8]) -> Result<Spec> {
    if bytes.len() as u64 > MAX_SIZE {
        return Err(Error::new(format!("it is larger than {MAX_SIZE} bytes")));
    }
    let spec = serde_saphyr::from_slice(bytes).map_err(|e| Error::new(sentence(&e)))?;
    check::spec(&spec)?;
    Ok(spec)
}

/// The line and what is wrong there, without the parser's picture of it.
fn sentence(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    text.lines().next().unwrap_or_default().replace(", set DuplicateKeyPolicy in Options if acceptable", "")
}

/// Go writes an empty list as null at times.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> std::result::Result<Vec<T>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINIMAL: &str = "cdiVersion: 0.5.0\nkind: vendor.com/device\ndevices:\n- name: 0\n  containerEdits:\n    deviceNodes:\n    - path: /dev/null\n";

    #[test]
    fn json_and_yaml_say_the_same() {
        let json = "{\n\t\"cdiVersion\": \"0.5.0\",\n\t\"kind\": \"vendor.com\\/device\",\n\t\"devices\": [\n\t\t{\"name\": \"0\", \
                    \"containerEdits\": {\"deviceNodes\": [{\"path\": \"/dev/null\"}], \"hooks\": null}}\n\t]\n}\n";
        assert_eq!(parse(json.as_bytes()).unwrap(), parse(MINIMAL.as_bytes()).unwrap());
        let again = serde_json::to_vec(&parse(json.as_bytes()).unwrap()).unwrap();
        assert_eq!(parse(&again).unwrap(), parse(json.as_bytes()).unwrap());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (add, words) in [
            ("color: red\n", "unknown field `color`"),
            ("kind: other.com/device\n", "duplicate mapping key"),
            ("containerEdits: {env: 3}\n", ""),
            ("containerEdits: [\n", ""),
            ("containerEdits: {deviceNodes: [{path: /dev/x, major: many}]}\n", ""),
        ] {
            let error = parse(format!("{MINIMAL}{add}").as_bytes()).unwrap_err();
            assert!(error.to_string().contains(words), "{add}: {error}");
            assert!(error.to_string().contains("at line 8, column"), "{add}: {error}");
        }
        assert!(parse(b"").is_err() && parse(b"null").is_err() && parse(&[0xff, 0xfe, 0, b'{']).is_err());
    }

    #[test]
    fn no_document_takes_more_than_its_size() {
        let line = |n: u32| format!("a{n}: &a{n} [{}]\n", format!("*a{},", n - 1).repeat(9));
        let bomb = (1..20).map(line).collect::<Vec<_>>().concat();
        assert!(parse(format!("a0: &a0 [x]\n{bomb}").as_bytes()).is_err());
        assert!(parse("[".repeat(1 << 20).as_bytes()).is_err());
        assert!(parse(&vec![b' '; 9 << 20]).unwrap_err().to_string().contains("larger than"));
        let nodes = "    - path: /dev/null\n".repeat(20_000);
        let spec = parse(format!("{MINIMAL}{nodes}").as_bytes()).unwrap();
        assert_eq!(spec.devices[0].container_edits.device_nodes.len(), 20_001);
    }

    proptest! {
        #[test]
        fn no_bytes_bring_it_down(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_change_of_a_spec_brings_it_down(at in 0..MINIMAL.len(), with in "[\\PC\n]{0,12}", gone in 0..8_usize) {
            let end = (at + gone).min(MINIMAL.len());
            if let Ok(spec) = parse(format!("{}{with}{}", &MINIMAL[..at], &MINIMAL[end..]).as_bytes()) {
                prop_assert!(!spec.devices.is_empty());
                let absolute = |node: &DeviceNode| node.path.starts_with('/');
                prop_assert!(spec.devices.iter().all(|d| d.container_edits.device_nodes.iter().all(absolute)));
            }
        }
    }
}
