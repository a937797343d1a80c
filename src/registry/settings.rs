//! Where the caller and the machine say how registries are to be met: pure.
//!
//! In: [`Host`]. Out: the files to look into, in order; nothing is read here. The places are those of containers-auth.json(5),
//! containers-registries.conf(5), containers-certs.d(5) and `docker login`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::credentials::Keyring;
use super::mirrors::RegistriesConf;
use super::proxy::Proxies;
use crate::config;
use crate::host::Host;

/// What is to be looked at; nothing by default.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Who the caller is, to which registry.
    pub keyring: Keyring,
    /// Where to ask for what.
    pub registries: RegistriesConf,
    /// Directories that have a directory of certificates for a registry; the first that does counts.
    pub certs: Vec<PathBuf>,
    /// How to get there.
    pub proxies: Proxies,
}

impl Settings {
    /// This caller's, on this machine.
    pub fn of(host: &Host) -> Self {
        Self { keyring: keyring(host), registries: registries(host), certs: certs(host), proxies: Proxies::of(host) }
    }
}

/// The caller's file and its additions instead of the machine's, or the machine's with both (containers-registries.conf(5),
/// containers-registries.conf.d(5)); gpurun's own files over all of them.
fn registries(host: &Host) -> RegistriesConf {
    RegistriesConf { choices: containers_registries(host), own: config::paths(config_home(host)).collect() }
}

/// `$CONTAINERS_REGISTRIES_CONF` takes the place of both files, and of no addition (containers/image,
/// pkg/sysregistriesv2, `newConfigWrapper`).
fn containers_registries(host: &Host) -> Vec<(PathBuf, Vec<PathBuf>)> {
    let machine = Path::new("/etc/containers");
    let own = config_home(host).map(|d| d.join("containers"));
    let additions = |dir: &Path| dir.join("registries.conf.d");
    let both = std::iter::once(additions(machine)).chain(own.as_deref().map(additions)).collect();
    if let Some(named) = dir(host, "CONTAINERS_REGISTRIES_CONF") {
        return vec![(named, both)];
    }
    let own = own.map(|dir| (dir.join("registries.conf"), vec![additions(&dir)]));
    own.into_iter().chain([(machine.join("registries.conf"), both)]).collect()
}

/// containers-certs.d(5), and the places of rootless Docker and Docker.
fn certs(host: &Host) -> Vec<PathBuf> {
    let own = config_home(host);
    let own = own.iter().flat_map(|d| [d.join("containers/certs.d"), d.join("docker/certs.d")]);
    own.chain(["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from)).collect()
}

/// `$REGISTRY_AUTH_FILE` alone, as containers-auth.json(5) has it; else every place that Podman and Docker write to.
fn keyring(host: &Host) -> Keyring {
    if let Some(file) = dir(host, "REGISTRY_AUTH_FILE") {
        return Keyring { to_write: Some(file.clone()), files: vec![file], docker: None };
    }
    let runtime = dir(host, "XDG_RUNTIME_DIR").map(|d| d.join("containers"));
    let runtime = runtime.unwrap_or_else(|| format!("/run/containers/{}", host.uid).into()).join("auth.json");
    let own = config_home(host).map(|d| d.join("containers/auth.json"));
    let docker = dir(host, "DOCKER_CONFIG").or_else(|| Some(host.home.as_ref()?.join(".docker")));
    let docker = docker.map(|d| d.join("config.json"));
    let files = std::iter::once(runtime).chain(own.clone()).chain(docker.clone()).collect();
    Keyring { files, docker, to_write: own }
}

/// Where the caller keeps configuration.
fn config_home(host: &Host) -> Option<PathBuf> {
    dir(host, "XDG_CONFIG_HOME").or_else(|| Some(host.home.as_ref()?.join(".config")))
}

/// A path that a variable holds; the XDG ones count only if they are absolute (basedir-spec).
fn dir(host: &Host, name: &str) -> Option<PathBuf> {
    let value = host.var(name).filter(|v: &&OsStr| !v.is_empty()).map(Path::new)?;
    (value.is_absolute() || !name.starts_with("XDG_")).then(|| value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(env: &[(&str, &str)]) -> Vec<String> {
        let env = env.iter().map(|(k, v)| (k.into(), v.into())).collect();
        let host = Host { env, ..Host::example() };
        Settings::of(&host).keyring.files.iter().map(|f| f.display().to_string()).collect()
    }

    #[test]
    fn the_callers_registries_come_before_the_machines() {
        let shown = |env: &[(&str, &str)]| {
            let env = env.iter().map(|(k, v)| (k.into(), v.into())).collect();
            let settings = Settings::of(&Host { env, ..Host::example() });
            format!("{:?}", settings.registries.choices).replace("/home/me/.config/", "~/")
        };
        let (main, additions) = (r#""~/containers/registries.conf""#, r#""~/containers/registries.conf.d""#);
        let both = format!(r#"["/etc/containers/registries.conf.d", {additions}]"#);
        let machine = format!(r#"("/etc/containers/registries.conf", {both})"#);
        assert_eq!(shown(&[]), format!("[({main}, [{additions}]), {machine}]"));
        assert_eq!(shown(&[("CONTAINERS_REGISTRIES_CONF", "/f")]), format!(r#"[("/f", {both})]"#));
    }

    #[test]
    fn credentials_are_looked_for_where_podman_and_docker_keep_them() {
        let docker = "/home/me/.docker/config.json";
        let want = ["/run/containers/1000/auth.json", "/home/me/.config/containers/auth.json", docker];
        assert_eq!(files(&[]), want);
        assert_eq!(files(&[("XDG_CONFIG_HOME", "relative"), ("XDG_RUNTIME_DIR", "")]), want);
        let env = [("XDG_RUNTIME_DIR", "/r"), ("XDG_CONFIG_HOME", "/c"), ("DOCKER_CONFIG", "/d")];
        assert_eq!(files(&env), ["/r/containers/auth.json", "/c/containers/auth.json", "/d/config.json"]);
        assert_eq!(files(&[("REGISTRY_AUTH_FILE", "/f"), ("DOCKER_CONFIG", "/d")]), ["/f"]);
    }
}
