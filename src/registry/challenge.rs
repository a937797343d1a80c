//! What a registry demands. In: the `WWW-Authenticate` headers of its 401. Out: a [`Demand`] with its [`Challenge`]s. Pure.

use ureq::http::Uri;

/// A registry's 401.
pub(super) struct Demand {
    pub(super) challenges: Vec<Challenge>,
    /// Where it came from.
    pub(super) registry: Uri,
    /// What a token must allow, where the challenge does not say; nothing, to log in.
    pub(super) repository: Option<String>,
}

impl Demand {
    pub(super) fn challenge(&self, scheme: &str) -> Option<&Challenge> {
        self.challenges.iter().find(|c| c.scheme.eq_ignore_ascii_case(scheme))
    }

    /// What is asked of a token server, in a message.
    pub(super) fn what(&self) -> String {
        self.repository.as_ref().map_or_else(|| "a token".into(), |r| format!("a token for `{r}`"))
    }
}

/// One way to authenticate (RFC 9110, 11.6.1).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Parses a `WWW-Authenticate` header, which may hold several challenges: a word that no `=` follows begins one.
    pub(super) fn parse(header: &str) -> Vec<Self> {
        let mut challenges: Vec<Self> = Vec::new();
        let mut rest = header;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            let (word, after) = split_word(rest);
            if word.is_empty() {
                let mut chars = rest.chars();
                match chars.next() {
                    None => return challenges,
                    Some(_) => rest = chars.as_str(), // no rule covers it: pass over it
                }
            } else if let Some(value) = after.trim_start().strip_prefix('=') {
                let (value, after) = split_value(value.trim_start());
                if let Some(challenge) = challenges.last_mut() {
                    challenge.parameters.push((word.into(), value));
                }
                rest = after;
            } else {
                challenges.push(Self { scheme: word.into(), parameters: Vec::new() });
                rest = after;
            }
        }
    }
}

fn split_word(text: &str) -> (&str, &str) {
    let end = |c: char| !c.is_ascii_alphanumeric() && !"!#$%&'*+-.^_`|~/:".contains(c);
    text.split_at(text.find(end).unwrap_or(text.len()))
}

/// A word, or a quoted string with its escapes undone.
fn split_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, rest) = split_word(text);
        return (word.into(), rest);
    };
    let (mut value, mut chars) = (String::new(), quoted.chars());
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => value.extend(chars.next()),
            other => value.push(other),
        }
    }
    (value, chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scheme key=value key=value; scheme ...`
    fn parsed(header: &str) -> String {
        let one = |c: &Challenge| {
            c.parameters.iter().fold(c.scheme.clone(), |text, (key, value)| format!("{text} {key}={value}"))
        };
        Challenge::parse(header).iter().map(one).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn challenges_of_every_spelling() {
        for (header, want) in [
            (
                r#"Bearer realm="https://a/t",service="s",scope="a,b c""#,
                "Bearer realm=https://a/t service=s scope=a,b c",
            ),
            (r#"Basic realm="x", Bearer realm="y" , service=z"#, "Basic realm=x; Bearer realm=y service=z"),
            (r#"bearer REALM = "a\"b\\c""#, r#"bearer REALM=a"b\c"#),
            ("Bearer realm=https://a/t,service=s", "Bearer realm=https://a/t service=s"),
            ("Negotiate", "Negotiate"),
            ("Negotiate, Basic realm=x", "Negotiate; Basic realm=x"),
            (r#"Bearer realm="never closed"#, "Bearer realm=never closed"),
            ("realm=x", ""),
            ("", ""),
            ("== ,,é=\"", ""),
        ] {
            assert_eq!(parsed(header), want, "{header}");
        }
    }
}
