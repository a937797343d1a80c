//! `gpurun login` and `gpurun logout`: the caller's credentials for a registry, kept where Docker and Podman find them too.

use std::io::{IsTerminal, Read};

use crate::cli::{LoginArgs, LogoutArgs};
use crate::error::{Context, Error, Hint, Result};
use crate::host::Host;
use crate::registry::credentials::{Credential, Secret, canonical_name};
use crate::registry::{self, Options, Settings};
use crate::{output, prompt};

/// The longest password; access tokens have some kB.
const MAX_PASSWORD: u64 = 16 << 10;

/// Keeps a credential, once the registry has taken it.
pub(super) fn login(args: &LoginArgs) -> Result<u8> {
    let name = canonical_name(&args.registry)?;
    let settings = Settings::of(&Host::probe());
    let credential = credential(args, &name)?;
    let notice = std::sync::Arc::new(|line: &str| output::notice(false, line));
    let options = Options { plain_http: args.plain_http, settings, notice };
    let registry = name.split('/').next().unwrap_or(&name);
    let looked = registry::verify(registry, &credential, &options).hint(|| "nothing was stored")?;
    let place = options.settings.keyring.store(&name, &credential)?;
    if !looked {
        output::notice(false, &format!("{registry} lets everyone in, and did not look at the password"));
    }
    output::facts(&format!("logged in to {name} as `{}`, kept in {place}\n", credential.user))?;
    Ok(0)
}

/// Forgets a credential wherever it is kept.
pub(super) fn logout(args: &LogoutArgs) -> Result<u8> {
    let name = canonical_name(&args.registry)?;
    let places = Settings::of(&Host::probe()).keyring.forget(&name)?;
    output::facts(&match places[..] {
        [] => format!("nobody was logged in to {name}\n"),
        _ => format!("logged out of {name}: removed from {}\n", places.join(", ")),
    })?;
    Ok(0)
}

/// From the options and standard input, or from the person at the terminal. Never from the command line, which everyone
/// on the machine can read.
fn credential(args: &LoginArgs, name: &str) -> Result<Credential> {
    let user = match (&args.username, args.password_stdin) {
        (Some(user), _) => user.clone(),
        (None, true) => return Err(Error::new("`--password-stdin` needs `--username`")),
        (None, false) => on_terminal(|| prompt::line(&format!("User name for {name}: ")))?,
    };
    if user.is_empty() || user.contains([':', '\n']) {
        return Err(Error::new("a user name is not empty, and has no `:` in it"));
    }
    let (password, from) = match args.password_stdin {
        true => (from_stdin(std::io::stdin())?, "standard input"),
        false => (on_terminal(|| prompt::secret(&format!("Password of {user}: ")))?, "the terminal"),
    };
    match password.is_empty() {
        true => Err(Error::new("the password is empty")),
        false => Ok(Credential { user, secret: Secret::Password(password), from: from.into() }),
    }
}

fn on_terminal(ask: impl FnOnce() -> Result<String>) -> Result<String> {
    match std::io::stdin().is_terminal() {
        true => ask(),
        false => Err(Error::new("there is no terminal to ask for a password on"))
            .hint(|| "`gpurun login --username NAME --password-stdin REGISTRY <FILE`"),
    }
}

/// All of it but its last line end.
fn from_stdin(stdin: impl Read) -> Result<String> {
    let mut text = String::new();
    stdin.take(MAX_PASSWORD + 1).read_to_string(&mut text).context(|| "read the password from standard input")?;
    if text.len() as u64 > MAX_PASSWORD {
        return Err(Error::new(format!("the password is longer than {MAX_PASSWORD} bytes")));
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_ends_with_its_line() {
        for (text, want) in [("p", "p"), ("p\n", "p"), ("p\r\n", "p"), (" p \n\n", " p \n"), ("", "")] {
            assert_eq!(from_stdin(text.as_bytes()).unwrap(), want);
        }
        assert!(from_stdin(std::io::repeat(b'x')).is_err());
    }
}
