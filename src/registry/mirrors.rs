//! Where an image is asked for, by containers-registries.conf(5) and gpurun's own configuration files: mirrors, other
//! locations, registries without TLS.
//!
//! In: the files of the machine and the caller, and a name. Out: the places that may have it, in order. What the files
//! say of short names does not count: a bare name is Docker Hub's, so that it means the same on every machine.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::credentials::canonical_name;
use crate::config::toml_error;
use crate::error::{Context, Error, Hint, Result};
use crate::reference::{ImageRef, RegistryRef};

/// The files to look into.
#[derive(Clone, Debug, Default)]
pub struct RegistriesConf {
    /// The first of these that is there counts, and the `*.conf` in the directories beside it, later ones over earlier
    /// ones.
    pub choices: Vec<(PathBuf, Vec<PathBuf>)>,
    /// gpurun's own configuration files, the first of which comes last: over all others.
    pub own: Vec<PathBuf>,
}

/// A place that may have an image.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) name: RegistryRef,
    /// Whether plain HTTP and unknown certificates will do.
    pub(super) insecure: bool,
}

/// A file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Content {
    registry: Vec<Rule>,
}

/// What gpurun's own file says of registries.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Own {
    registry: BTreeMap<String, OwnRule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OwnRule {
    mirrors: Vec<String>,
    insecure: bool,
}

/// What a file says of the names that begin with a prefix.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Rule {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror: Vec<Mirror>,
    mirror_by_digest_only: bool,
    /// Where it is from.
    #[serde(skip)]
    file: PathBuf,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Mirror {
    location: String,
    insecure: bool,
    #[serde(rename = "pull-from-mirror")]
    serves: String,
}

impl RegistriesConf {
    /// Reads them.
    pub(super) fn read(&self) -> Result<Vec<Rule>> {
        let mut rules = Vec::new();
        for path in self.containers() {
            add(&mut rules, &path, parse)?;
        }
        for path in self.own.iter().rev() {
            add(&mut rules, path, own_rules)?;
        }
        Ok(rules)
    }

    fn containers(&self) -> Vec<PathBuf> {
        let chosen = self.choices.iter().find(|(file, _)| file.exists()).or(self.choices.last());
        let files = chosen.map(|(file, dirs)| {
            std::iter::once(file.clone()).chain(dirs.iter().flat_map(|dir| additions(dir))).collect()
        });
        files.unwrap_or_default()
    }
}

/// Adds what a file says, if it is there. A later file's rule takes the place of one for the same prefix.
fn add(rules: &mut Vec<Rule>, path: &Path, parse: fn(&Path, &str) -> Result<Vec<Rule>>) -> Result<()> {
    let Some(text) = text(path)? else { return Ok(()) };
    for rule in parse(path, &text).context(|| format!("read `{}`", path.display()))? {
        rules.retain(|other| other.prefix != rule.prefix);
        rules.push(rule);
    }
    Ok(())
}

/// Refuses one of gpurun's own files if what it says of registries is not fit for use.
pub(crate) fn check_own(path: &Path, text: &str) -> Result<()> {
    own_rules(path, text).map(drop)
}

/// What one of gpurun's own files says: `[registry."HOST[/NAMESPACE]"]` with `mirrors` and `insecure`.
fn own_rules(path: &Path, text: &str) -> Result<Vec<Rule>> {
    let own: Own = toml::from_str(text).map_err(|e| toml_error(text, &e))?;
    own.registry.into_iter().map(|(name, rule)| rule.named(&name, path)).collect()
}

impl OwnRule {
    fn named(self, name: &str, path: &Path) -> Result<Rule> {
        let prefix = canonical_name(name)?;
        let mirror = self.mirrors.into_iter().map(|location| Mirror { location, ..Mirror::default() }).collect();
        let (location, insecure, file) = (prefix.clone(), self.insecure, path.into());
        Ok(Rule { prefix, location, insecure, mirror, file, ..Rule::default() })
    }
}

/// The `*.conf` of a directory, by name.
fn additions(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten(); // most machines have none
    let mut files: Vec<_> = entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "conf")).collect();
    files.sort();
    files
}

fn text(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e).context(|| format!("read `{}`", path.display())),
    }
}

fn parse(path: &Path, text: &str) -> Result<Vec<Rule>> {
    let content: Content = toml::from_str(text).map_err(|e| toml_error(text, &e))?;
    let named = |mut rule: Rule| {
        rule.file = path.into();
        if rule.prefix.is_empty() {
            rule.prefix.clone_from(&rule.location);
        }
        match rule.prefix.is_empty() {
            true => Err(Error::new("a `[[registry]]` has neither a `prefix` nor a `location`")),
            false => Ok(rule),
        }
    };
    content.registry.into_iter().map(named).collect()
}

/// The places to ask for an image, the last of which is where the name says, or where a rule moves it.
pub(super) fn places(name: &RegistryRef, rules: &[Rule]) -> Result<Vec<Place>> {
    let text = name.to_string().replacen('#', "/", 1);
    let matching = rules.iter().filter_map(|rule| Some((matched(&rule.prefix, &text)?, rule)));
    let Some((end, rule)) = matching.max_by_key(|(_, rule)| rule.prefix.len()) else {
        return Ok(vec![Place { name: name.clone(), insecure: false }]);
    };
    if rule.blocked {
        let error = Error::new(format!("`{name}` is blocked: `{}` says so of `{}`", rule.file.display(), rule.prefix));
        return Err(error).hint(|| "whoever manages this machine forbids it");
    }
    let place = |location: &str, insecure| {
        let what = || format!("apply the rule for `{}` in `{}`", rule.prefix, rule.file.display());
        let moved = if location.is_empty() { Ok(name.clone()) } else { moved(&text, end, location).context(what) };
        moved.map(|name| Place { insecure: insecure || is_insecure(&name.registry, rules), name })
    };
    let mirrors = rule.mirror.iter().filter(|mirror| rule.uses(mirror, name));
    let mirrors = mirrors.map(|mirror| place(&mirror.location, mirror.insecure));
    mirrors.chain(std::iter::once_with(|| place(&rule.location, rule.insecure))).collect()
}

/// Whether the rule for a whole registry lets it do without TLS.
pub(super) fn is_insecure(registry: &str, rules: &[Rule]) -> bool {
    let matching = rules.iter().filter(|rule| matched(&rule.prefix, registry).is_some());
    matching.max_by_key(|rule| rule.prefix.len()).is_some_and(|rule| rule.insecure)
}

impl Rule {
    /// Whether a mirror serves names of this kind.
    fn uses(&self, mirror: &Mirror, name: &RegistryRef) -> bool {
        let by_digest = name.digest.is_some();
        match mirror.serves.as_str() {
            "digest-only" => by_digest,
            "tag-only" => !by_digest,
            _ => by_digest || !self.mirror_by_digest_only,
        }
    }
}

/// How much of a name a prefix stands for, if it does. `example.com` is not the beginning of `example.com:5000`.
fn matched(prefix: &str, name: &str) -> Option<usize> {
    let host = name.split('/').next().unwrap_or(name);
    if let Some(domain) = prefix.strip_prefix('*') {
        let bare = host.rsplit_once(':').map_or(host, |(bare, _)| bare);
        return (domain.starts_with('.') && bare.ends_with(domain)).then_some(host.len());
    }
    let rest = name.strip_prefix(prefix)?;
    let ends = rest.is_empty() || rest.starts_with('/') || prefix.contains('/') && rest.starts_with([':', '@']);
    ends.then_some(prefix.len())
}

/// `text` with its first `end` bytes replaced by a location, `HOST[/NAMESPACE...]`.
fn moved(text: &str, end: usize, location: &str) -> Result<RegistryRef> {
    let location = location.trim_end_matches('/');
    let (host, namespace) = location.split_once('/').unwrap_or((location, ""));
    let rest = format!("{namespace}{}", &text[end..]);
    match ImageRef::parse(&format!("docker://{host}#{}", rest.trim_start_matches('/')))? {
        ImageRef::Registry(name) => Ok(name),
        other => Err(Error::new(format!("`{other}` is not in a registry"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = r#"
        unqualified-search-registries = ["evil.example"]
        short-name-mode = "enforcing"
        [[registry]]
        location = "docker.io"
        [[registry.mirror]]
        location = "mirror:5000/hub/"
        insecure = true
        [[registry.mirror]]
        location = "digests.example"
        pull-from-mirror = "digest-only"
        [[registry]]
        prefix = "example.com/foo"
        location = "internal.example/bar"
        [[registry]]
        prefix = "example.com/foo/bad"
        blocked = true
        [[registry]]
        prefix = "*.wild.example"
        insecure = true
        [[registry]]
        prefix = "quay.io"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "m.example"
        [[registry]]
        prefix = "head"
        location = "other"
    "#;

    /// The places, insecure ones with a `!`.
    fn shown(text: &str) -> String {
        let ImageRef::Registry(name) = ImageRef::parse(text).unwrap() else { panic!("{text}") };
        let places = parse(Path::new("/f"), CONF).and_then(|rules| places(&name, &rules));
        let one = |p: &Place| format!("{}{}", p.name, if p.insecure { "!" } else { "" });
        places.map_or_else(|e| format!("{e:#}"), |all| all.iter().map(one).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn the_longest_prefix_decides_where_to_ask() {
        let d = format!("sha256:{:064}", 0);
        let hub = "library/busybox";
        for (name, want) in [
            ("busybox", format!("mirror:5000/hub/{hub}:latest! docker.io/{hub}:latest")),
            ("head#a/b", "other#a/b:latest".into()),
            (
                &format!("busybox@{d}"),
                format!("mirror:5000/hub/{hub}@{d}! digests.example/{hub}@{d} docker.io/{hub}@{d}"),
            ),
            ("example.com/foo:1", "internal.example/bar:1".into()),
            ("example.com/foo/x/y:1", "internal.example/bar/x/y:1".into()),
            ("example.com/food:1", "example.com/food:1".into()),
            ("example.com:80/foo:1", "example.com:80/foo:1".into()),
            (
                "example.com/foo/bad/x:1",
                "`example.com/foo/bad/x:1` is blocked: `/f` says so of `example.com/foo/bad`".into(),
            ),
            ("a.b.wild.example:81/x", "a.b.wild.example:81/x:latest!".into()),
            ("wild.example/x", "wild.example/x:latest".into()),
            ("quay.io/x/y", "quay.io/x/y:latest".into()),
            (&format!("quay.io/x@{d}"), format!("m.example/x@{d} quay.io/x@{d}")),
        ] {
            assert_eq!(shown(name), want, "{name}");
        }
    }

    #[test]
    fn files_are_chosen_and_merged() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        };
        let rule = |prefix: &str, to: &str| format!("[[registry]]\nprefix = '{prefix}'\nlocation = '{to}'\n");
        let main = write("main", &(rule("a", "x") + &rule("b", "x")));
        write("d/2.conf", &rule("b", "z"));
        write("d/1.conf", &rule("b", "y"));
        write("d/1.txt", "nonsense");
        let chosen = (main, vec![dir.path().join("d"), dir.path().join("none")]);
        let choices = vec![(dir.path().join("none"), vec![]), chosen];
        let conf = RegistriesConf { choices, own: Vec::new() };
        let rules: Vec<_> = conf.read().unwrap().into_iter().map(|r| format!("{} {}", r.prefix, r.location)).collect();
        assert_eq!(rules, ["a x", "b z"]);
        let broken = write("d/3.conf", "[[registry]]\n");
        let error = format!("{:#}", conf.read().unwrap_err());
        assert!(error.starts_with(&format!("read `{}`: a `[[registry]]`", broken.display())), "{error}");
        assert_eq!(RegistriesConf::default().read().unwrap().len(), 0);
    }
}
