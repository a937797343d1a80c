//! What registries answer, and the files that say how to talk to them. Compiled as a part of `registry`, whose inner
//! modules it drives.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::challenge::Challenge;
use super::credentials::Keyring;
use super::retry::retry_after;
use super::{RegistriesConf, mirrors};
use crate::fuzz::{targets, text};
use crate::reference::ImageRef;

targets! {
    /// `WWW-Authenticate`.
    fn challenge(bytes) {
        let text = text(bytes);
        assert!(Challenge::parse(&text).len() <= text.len());
    }

    /// `Retry-After`: a date of the past waits for nothing.
    fn wait(bytes) {
        let text = text(bytes);
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
        let (soon, late) = (retry_after(&text, now), retry_after(&text, now + Duration::from_secs(1 << 38)));
        assert_eq!(soon.is_some(), late.is_some());
        assert!(late <= soon);
    }

    /// `config.json` and `auth.json`. No helper is started: there is none of an empty name, and no `PATH` has one.
    fn credentials(bytes) {
        let file = written(bytes);
        let keyring = Keyring { files: vec![file.path().into()], ..Keyring::default() };
        for name in ["docker.io", "registry.example:5000/team/project"] {
            let _ = keyring.find(name);
        }
    }

    /// `registries.conf`: wherever an image is asked for, it is a name.
    fn registries(bytes) {
        let file = written(bytes);
        let conf = RegistriesConf { choices: vec![(file.path().into(), Vec::new())], ..RegistriesConf::default() };
        let Ok(rules) = conf.read() else { return };
        for name in ["debian:bookworm", "registry.example:5000/team/project/image@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"] {
            let Ok(ImageRef::Registry(name)) = ImageRef::parse(name) else { unreachable!() };
            for place in mirrors::places(&name, &rules).into_iter().flatten() {
                assert!(!place.name.registry.is_empty() && !place.name.repository.is_empty());
                assert_eq!(place.name.digest, name.digest, "another image");
            }
            let _ = mirrors::is_insecure(&name.registry, &rules);
        }
    }
}

fn written(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(Path::new(file.path()), bytes).unwrap();
    file
}
