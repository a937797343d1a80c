//! Whom a connection to a registry trusts, and what it shows of itself, by containers-certs.d(5), which is Docker's rule
//! too.
//!
//! In: directories that may have a directory of the registry's name. Out: certificate authorities beside the platform's,
//! and a client certificate. As in Docker and Podman they hold for all that the session does, so that a token server
//! whose certificate is of the same authority is trusted too.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::error::{Context, Error, Result};

/// What is not the platform's own.
#[derive(Debug, Default)]
pub(super) struct Trust {
    authorities: Vec<Certificate<'static>>,
    client: Option<ClientCert>,
}

/// The files of a directory that count.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    authorities: Vec<String>,
    /// Without their endings.
    clients: Vec<String>,
}

impl Trust {
    /// What the first of the directories that knows the registry says.
    pub(super) fn load(dirs: &[PathBuf], registry: &str) -> Result<Self> {
        let Some(dir) = dirs.iter().map(|dir| dir.join(registry)).find(|dir| dir.is_dir()) else {
            return Ok(Self::default());
        };
        Self::of(&dir).context(|| format!("read the certificates for `{registry}` in `{}`", dir.display()))
    }

    fn of(dir: &Path) -> Result<Self> {
        let entries = std::fs::read_dir(dir).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        let entries = entries.context(|| "list them")?;
        let names = sort(&entries.iter().map(|e| e.file_name().to_string_lossy().into_owned()).collect())?;
        let mut trust = Self::default();
        for name in &names.authorities {
            trust.authorities.extend(read(&dir.join(name))?.0);
        }
        // ureq shows one at most, and which of several the registry would want cannot be told before it asks.
        if let Some(name) = names.clients.first() {
            trust.client = Some(client(&dir.join(format!("{name}.cert")), &dir.join(format!("{name}.key")))?);
        }
        Ok(trust)
    }

    /// As ureq takes it. The platform's authorities, `SSL_CERT_FILE` included, are trusted in any case, and everyone if
    /// `insecure`.
    pub(super) fn config(self, insecure: bool) -> TlsConfig {
        let roots = match self.authorities.is_empty() {
            true => RootCerts::PlatformVerifier,
            false => RootCerts::from(platforms().chain(self.authorities)),
        };
        TlsConfig::builder().root_certs(roots).client_cert(self.client).disable_verification(insecure).build()
    }
}

fn platforms() -> impl Iterator<Item = Certificate<'static>> {
    let loaded = rustls_native_certs::load_native_certs(); // one that cannot be read is not trusted
    loaded.certs.into_iter().map(|certificate| Certificate::from_der(&certificate).to_owned())
}

/// Which files count. A certificate without its key, or a key without its certificate, is a mistake, as for Docker.
fn sort(names: &BTreeSet<String>) -> Result<Names> {
    let ending = |with: &str| names.iter().filter_map(|n| n.strip_suffix(with)).map(str::to_owned).collect::<Vec<_>>();
    let (clients, keys) = (ending(".cert"), ending(".key"));
    if let Some(alone) = clients.iter().find(|name| !keys.contains(name)) {
        let error = Error::new(format!("`{alone}.cert` has no `{alone}.key`"));
        return Err(error.hint("an authority's certificate has the ending `.crt`"));
    }
    if let Some(alone) = keys.iter().find(|name| !clients.contains(name)) {
        return Err(Error::new(format!("`{alone}.key` has no `{alone}.cert`")));
    }
    let authorities = ending(".crt").into_iter().map(|name| name + ".crt").collect();
    Ok(Names { authorities, clients })
}

fn client(cert: &Path, key: &Path) -> Result<ClientCert> {
    let (chain, _) = read(cert)?;
    let what = || format!("use the key `{}`", key.display());
    let key = read(key)?.1.context(|| "there is no key in it").context(what)?;
    check(&chain, &key).context(what)?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

/// ureq takes for granted, or panics, that a key is fit for use and its certificate's.
fn check(chain: &[Certificate], key: &PrivateKey) -> Result<()> {
    let provider = rustls::crypto::ring::default_provider();
    let chain = chain.iter().map(|c| CertificateDer::from(c.der().to_vec())).collect();
    let key = PrivateKeyDer::try_from(key.der().to_vec()).map_err(Error::new)?;
    CertifiedKey::from_der(chain, key, &provider).context(|| "match it with its certificate")?;
    Ok(())
}

/// The certificates and the key that a PEM file holds.
fn read(path: &Path) -> Result<(Vec<Certificate<'static>>, Option<PrivateKey<'static>>)> {
    let what = || format!("read `{}`", path.display());
    let pem = std::fs::read(path).context(what)?;
    let (mut certificates, mut key) = (Vec::new(), None);
    for item in parse_pem(&pem) {
        match item.context(what)? {
            PemItem::Certificate(certificate) => certificates.push(certificate),
            PemItem::PrivateKey(private) => key = Some(private),
            _ => {}
        }
    }
    match certificates.is_empty() && key.is_none() {
        true => Err(Error::new("there is no PEM certificate or key in it")).context(what),
        false => Ok((certificates, key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(names: &[&str]) -> Result<Names> {
        sort(&names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn files_count_by_their_endings() {
        let names = sorted(&["ca.crt", "b.cert", "b.key", "a.key", "a.cert", "README", "old.pem"]).unwrap();
        assert_eq!(names.authorities, ["ca.crt"]);
        assert_eq!(names.clients, ["a", "b"]);
        assert_eq!(sorted(&["a.cert"]).unwrap_err().to_string(), "`a.cert` has no `a.key`");
        assert_eq!(sorted(&["a.key", "a.crt"]).unwrap_err().to_string(), "`a.key` has no `a.cert`");
    }

    #[test]
    fn the_first_directory_that_knows_the_registry_counts() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = ["a", "b", "c"].map(|name| dir.path().join(name));
        assert_eq!(Trust::load(&dirs, "h:5000").unwrap().authorities.len(), 0);
        for known in &dirs[1..] {
            std::fs::create_dir_all(known.join("h:5000")).unwrap();
        }
        std::fs::write(dirs[2].join("h:5000/ca.crt"), "nonsense").unwrap();
        assert!(Trust::load(&dirs, "h:5000").is_ok());
        let error = format!("{:#}", Trust::load(&dirs[2..], "h:5000").unwrap_err());
        assert!(error.ends_with("ca.crt`: there is no PEM certificate or key in it"), "{error}");
    }
}
