//! What NVIDIA's hooks do, done without running them.
//!
//! In: a [`Hook`]. Out: its [`Effect`], or a refusal that names it. Pure. A hook runs as the caller, in the container's root,
//! with arguments from a file and programs that follow the image's links (CVE-2025-23266, CVE-2025-23267): none is ever
//! executed here. Arguments are those of nvidia-container-toolkit 1.13 to 1.20 (cmd/nvidia-cdi-hook).

use super::spec::Hook;
use crate::error::{Context, Error, Result};
use crate::gpu::inventory::Version;

/// What a hook does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Makes links: path inside, and where it leads.
    Links(Vec<(String, String)>),
    /// Lets the loader find the libraries in these directories.
    Folders(Vec<String>),
    /// Prefers the image's own libcuda, if it is newer than this driver.
    Compat(Option<Version>),
    /// Keeps the driver from making nodes.
    KeepNodes,
    /// Has EGL and Vulkan list only the GPUs that are there.
    Profile,
    /// Gives directories a mode.
    Mode(String, Vec<String>),
}

/// Options whose value a hook takes from the engine, or that say how it does what is done differently here.
const WITHOUT_EFFECT: &[&str] = &["container-spec", "ldconfig-path", "host-root"];

/// What a hook would do.
pub(super) fn effect(hook: &Hook) -> Result<Effect> {
    let command = command(hook).ok_or_else(|| unknown(hook))?;
    let (verb, arguments) = command.split_first().ok_or_else(|| unknown(hook))?;
    let options = Options::parse(arguments).context(|| format!("understand the hook `{}`", hook.args.join(" ")))?;
    let known = known(verb, &options).context(|| format!("do what the hook `{}` would do", hook.path))?;
    known.ok_or_else(|| unknown(hook))
}

/// `None` for a verb that is not known.
fn known(verb: &str, options: &Options) -> Result<Option<Effect>> {
    Ok(Some(match verb {
        "create-symlinks" => Effect::Links(links(options)?),
        "update-ldcache" | "create-soname-symlinks" => Effect::Folders(options.only(&["folder"])?.all("folder")),
        // Its other options tune a decision that is made here by our own facts.
        "enable-cuda-compat" | "cudacompat" => {
            Effect::Compat(options.all("host-driver-version").first().and_then(|v| Version::parse(v)))
        }
        "disable-device-node-modification" => options.only(&[]).map(|_| Effect::KeepNodes)?,
        "update-application-profile" => options.only(&[]).map(|_| Effect::Profile)?,
        "chmod" => {
            let options = options.only(&["mode", "path"])?;
            Effect::Mode(options.all("mode").join(","), options.all("path"))
        }
        _ => return Ok(None),
    }))
}

/// The words after the program's own: `nvidia-cdi-hook VERB …`, or `nvidia-ctk hook VERB …` before 1.16.
fn command(hook: &Hook) -> Option<&[String]> {
    let program = hook.path.rsplit('/').next()?;
    let words = hook.args.get(1..)?;
    let start = words.iter().position(|word| !word.starts_with('-'))?;
    match &words[start..] {
        [first, rest @ ..] if program.contains("nvidia-ctk") && first == "hook" => Some(rest),
        all if program.contains("nvidia-cdi-hook") => Some(all),
        _ => None,
    }
}

fn unknown(hook: &Hook) -> Error {
    let line = if hook.args.is_empty() { &hook.path } else { &hook.args.join(" ") };
    Error::new(format!("the hook `{}` is not known: `{line}`", hook.path))
        .hint("gpurun runs no program for a device; what NVIDIA's hooks do it does itself")
        .hint("a copy of the spec without the hook, in a directory that `--cdi-spec-dir` names, can be used if the device works without it")
}

fn links(options: &Options) -> Result<Vec<(String, String)>> {
    let split = |link: String| {
        let parts = link.split_once("::").filter(|(to, path)| !to.is_empty() && path.starts_with('/'));
        let (to, path) = parts.context(|| format!("`--link {link}` is not TARGET::LINK"))?;
        Ok((path.to_owned(), to.to_owned()))
    };
    options.only(&["link"])?.all("link").into_iter().map(split).collect()
}

/// `--name=value` or `--name value`, with one dash or two, as urfave/cli takes them.
struct Options(Vec<(String, String)>);

impl Options {
    fn parse(words: &[String]) -> Result<Self> {
        let mut all = Vec::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
            let name = name.context(|| format!("`{word}` is no option"))?;
            let (name, value) = match name.split_once('=') {
                Some((name, value)) => (name, value),
                None => (name, words.next().context(|| format!("`{word}` has no value"))?.as_str()),
            };
            all.push((name.to_owned(), value.to_owned()));
        }
        Ok(Self(all))
    }

    /// Refuses other options than these.
    fn only(&self, names: &[&str]) -> Result<&Self> {
        let known = |name: &str| names.contains(&name) || WITHOUT_EFFECT.contains(&name);
        match self.0.iter().find(|(name, _)| !known(name)) {
            Some((name, _)) => Err(Error::new(format!("its option `--{name}` is not known"))),
            None => Ok(self),
        }
    }

    /// All values of an option: a list may be written with commas.
    fn all(&self, name: &str) -> Vec<String> {
        let values = self.0.iter().filter(|(n, _)| n == name);
        values.flat_map(|(_, value)| value.split(',')).filter(|v| !v.is_empty()).map(ToOwned::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hook(path: &str, line: &str) -> Hook {
        let args = line.split_whitespace().map(ToOwned::to_owned).collect();
        Hook { hook_name: "createContainer".into(), path: path.into(), args, ..Hook::default() }
    }

    fn done(line: &str) -> Result<Effect> {
        effect(&hook(&format!("/usr/bin/{}", line.split_whitespace().next().unwrap()), line))
    }

    #[test]
    fn hooks_of_all_versions_are_understood() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let links = Effect::Links(vec![pair("/usr/lib64/libcuda.so", "libcuda.so.1"), pair("/dev/dri/x", "../card0")]);
        for line in [
            "nvidia-ctk hook create-symlinks --link libcuda.so.1::/usr/lib64/libcuda.so --link ../card0::/dev/dri/x",
            "nvidia-cdi-hook create-symlinks --link=libcuda.so.1::/usr/lib64/libcuda.so,../card0::/dev/dri/x",
            "nvidia-ctk --quiet hook create-symlinks -link libcuda.so.1::/usr/lib64/libcuda.so --link ../card0::/dev/dri/x",
        ] {
            assert_eq!(done(line).unwrap(), links, "{line}");
        }
        let folders = Effect::Folders(vec!["/usr/lib64".into(), "/usr/lib64/vdpau".into()]);
        let line = "nvidia-cdi-hook update-ldcache --ldconfig-path /sbin/ldconfig --folder /usr/lib64 --folder /usr/lib64/vdpau";
        assert_eq!(done(line).unwrap(), folders);
        let compat = "nvidia-cdi-hook enable-cuda-compat --host-driver-version=615.71.09 --host-cuda-version=13.3";
        assert_eq!(done(compat).unwrap(), Effect::Compat(Version::parse("615.71.09")));
        assert_eq!(done("nvidia-cdi-hook disable-device-node-modification").unwrap(), Effect::KeepNodes);
        assert_eq!(done("nvidia-cdi-hook update-application-profile").unwrap(), Effect::Profile);
        assert_eq!(
            done("nvidia-ctk hook chmod --mode 755 --path /dev/dri").unwrap(),
            Effect::Mode("755".into(), vec!["/dev/dri".into()])
        );
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for line in [
            "nvidia-ctk runtime configure",
            "nvidia-ctk create-symlinks --link a::/b",
            "nvidia-cdi-hook",
            "nvidia-cdi-hook make-coffee",
            "nvidia-cdi-hook create-symlinks --csv-filename /etc/x.csv",
            "nvidia-cdi-hook create-symlinks --link a:/b",
            "nvidia-cdi-hook create-symlinks --link a::b",
            "nvidia-cdi-hook update-ldcache /usr/lib64",
            "nvidia-cdi-hook update-ldcache --folder",
            "sh -c nvidia-cdi-hook",
        ] {
            assert!(done(line).is_err(), "{line}");
        }
        let error = effect(&hook("/opt/vendor/hook", "hook --now")).unwrap_err();
        assert!(format!("{error:#}").contains("`/opt/vendor/hook` is not known: `hook --now`"), "{error:#}");
    }

    proptest! {
        #[test]
        fn links_have_absolute_paths_whatever_the_arguments(words in proptest::collection::vec("(--link|-link=|[a:/=,-]{0,8})", 0..6)) {
            let args = ["nvidia-cdi-hook".to_owned(), "create-symlinks".into()].into_iter().chain(words).collect();
            let hook = Hook { args, ..hook("/usr/bin/nvidia-cdi-hook", "x") };
            if let Ok(Effect::Links(links)) = effect(&hook) {
                prop_assert!(links.iter().all(|(path, to)| path.starts_with('/') && !to.is_empty()));
            }
        }
    }
}
