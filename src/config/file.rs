//! One configuration file: its text → the settings in it, each with its line. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Context, Error, Result};
use crate::registry;

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) options: Vec<Setting>,
    pub(super) profiles: BTreeMap<String, Vec<Setting>>,
}

/// What a file says of one option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) key: String,
    pub(super) value: Value,
    pub(super) place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Flag(bool),
    One(String),
    List(Vec<String>),
}

/// Where it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: PathBuf,
    pub(super) line: usize,
    pub(super) profile: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` line {}", self.file.display(), self.line)?;
        match &self.profile {
            Some(profile) => write!(f, " (profile `{}`)", profile.escape_debug()),
            None => Ok(()),
        }
    }
}

impl Value {
    /// As on a command line.
    pub(super) fn values(&self) -> Vec<String> {
        match self {
            Self::Flag(flag) => vec![flag.to_string()],
            Self::One(text) => vec![text.clone()],
            Self::List(texts) => texts.clone(),
        }
    }
}

impl File {
    /// Reads the text of the file at `path`; `variable` gives the caller's variables.
    pub(super) fn parse(path: &Path, text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let reader = Reader { path, text, variable };
        reader.file().context(|| format!("read the configuration file `{}`", path.display()))
    }
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Reader<'_> {
    fn file(&self) -> Result<File> {
        let table = DeTable::parse(self.text).map_err(|e| toml_error(self.text, &e))?;
        let mut file = File::default();
        for (key, value) in table.get_ref() {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("registry", _) => registry::check_own(self.path, self.text)?,
                ("profile", DeValue::Table(profiles)) => file.profiles = self.profiles(profiles)?,
                ("profile", _) => return Err(self.error(&value.span(), "a profile is a table: `[profile.NAME]`")),
                (name, _) => file.options.push(self.setting(name, value, None)?),
            }
        }
        Ok(file)
    }

    fn profiles(&self, profiles: &DeTable) -> Result<BTreeMap<String, Vec<Setting>>> {
        let profile = |(name, options): (&Spanned<_>, &Spanned<DeValue>)| {
            let name: &str = AsRef::<str>::as_ref(name.get_ref());
            let table = options.get_ref().as_table();
            let table = table.ok_or_else(|| self.error(&options.span(), "a profile is a table: `[profile.NAME]`"))?;
            let settings = table.iter().map(|(key, value)| self.setting(key.get_ref(), value, Some(name)));
            Ok((name.to_owned(), settings.collect::<Result<_>>()?))
        };
        profiles.iter().map(profile).collect()
    }

    fn setting(&self, key: &str, value: &Spanned<DeValue>, profile: Option<&str>) -> Result<Setting> {
        let line = line(self.text, &value.span());
        let place = Place { file: self.path.into(), line, profile: profile.map(Into::into) };
        let value = match value.get_ref() {
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Array(items) => Value::List(items.iter().map(|item| self.one(key, item)).collect::<Result<_>>()?),
            _ => Value::One(self.one(key, value)?),
        };
        Ok(Setting { key: key.into(), value, place })
    }

    fn one(&self, key: &str, value: &Spanned<DeValue>) -> Result<String> {
        let span = value.span();
        match value.get_ref() {
            DeValue::String(text) => self.expanded(text).map_err(|what| self.error(&span, &what)),
            DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().into()),
            _ => Err(self.error(
                &span,
                &format!("`{}` is text, a whole number, a list of them, or true or false", key.escape_debug()),
            )),
        }
    }

    /// With variables in the place of `${NAME}`.
    fn expanded(&self, text: &str) -> Result<String, String> {
        let Some((before, rest)) = text.split_once("${") else { return Ok(text.into()) };
        let (name, after) = rest.split_once('}').ok_or("a `${` has no `}`")?;
        let value = (self.variable)(name).ok_or_else(|| format!("there is no variable `{}`", name.escape_debug()))?;
        Ok(format!("{before}{value}{}", self.expanded(after)?))
    }

    fn error(&self, span: &Range<usize>, what: &str) -> Error {
        Error::new(format!("line {}: {what}", line(self.text, span)))
    }
}

/// The line on which a part of the text begins.
fn line(text: &str, span: &Range<usize>) -> usize {
    text.bytes().take(span.start).filter(|b| *b == b'\n').count() + 1
}

/// What is wrong with a TOML text, in a line.
pub(crate) fn toml_error(text: &str, error: &toml::de::Error) -> Error {
    let line = error.span().map(|span| format!("line {}: ", line(text, &span))).unwrap_or_default();
    Error::new(format!("{line}{}", error.message().replace('\n', ", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<File> {
        File::parse(Path::new("/f"), text, &|name| (name == "USER").then(|| "me".into()))
    }

    #[test]
    fn values_of_every_kind_have_their_lines() {
        let file =
            parsed("gpus = 2\n\nroot = true\nstore = '/s/${USER}/x'\n[profile.p]\nvolume = [\n'/a',\n]").unwrap();
        let shown: Vec<_> = file.options.iter().chain(&file.profiles["p"]).collect();
        let shown: Vec<_> = shown.iter().map(|s| format!("{} {:?} {}", s.key, s.value.values(), s.place)).collect();
        assert_eq!(
            shown,
            [
                r#"gpus ["2"] `/f` line 1"#,
                r#"root ["true"] `/f` line 3"#,
                r#"store ["/s/me/x"] `/f` line 4"#,
                r#"volume ["/a"] `/f` line 6 (profile `p`)"#,
            ]
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_line() {
        for (text, want) in [
            ("x = 1\ny =", "line 2: "),
            ("\nx = 1.5", "line 2: `x` is text, a whole number,"),
            ("x = [1,\n[2]]", "line 2: `x` is text"),
            ("[other]\nx = 1", "line 1: `other` is text"),
            ("profile = 'x'", "line 1: a profile is a table"),
            ("[profile]\nx = 1", "line 2: a profile is a table"),
            ("store = '/${HOST}'", "line 1: there is no variable `HOST`"),
            ("store = '/${HOST'", "line 1: a `${` has no `}`"),
            ("[registry.'h:1']\nmirror = 1", "line 2: unknown field `mirror`"),
            ("[registry.'h:1']\nmirrors = 1", "line 2: invalid type"),
            ("[registry.myhost]\ninsecure = true", "`myhost` is not the name of a registry"),
        ] {
            let error = format!("{:#}", parsed(text).unwrap_err());
            assert!(error.starts_with(&format!("read the configuration file `/f`: {want}")), "{text}: {error}");
        }
    }
}
