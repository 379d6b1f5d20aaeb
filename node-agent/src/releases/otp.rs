//! The file `releases/RELEASES`, which Elixir's releases lack and OTP's release handler needs: without it the first hot
//! upgrade works, and its downgrade and removal do not.
//!
//! Pure but for reading the release's own description. A description that cannot be read costs that file, not the
//! deployment.

use std::fs;
use std::path::Path;

use proto::ids::AppName;

use super::manifest::Item;

pub(super) const RELEASES: &str = "releases/RELEASES";
const START_ERL: &str = "releases/start_erl.data";
/// Of both files: theirs are a few kilobytes.
const MAX_BYTES: u64 = 1 << 20;

/// What to write there; `None` where the file is there, or is of no use (no release by OTP's rules).
pub(super) fn missing_releases_file(app: &AppName, items: &[Item], files: &Path) -> Option<String> {
    let has = |path: &str| items.iter().any(|item| item.path() == path);
    if has(RELEASES) || !has(START_ERL) {
        return None;
    }
    let version = read(files, items, START_ERL)?.split_whitespace().nth(1)?.to_owned();
    let folder = format!("releases/{version}/");
    let own = format!("{folder}{app}.rel");
    let description = if has(&own) {
        own
    } else {
        let is_description =
            |path: &&str| path.strip_prefix(&folder).is_some_and(|name| name.strip_suffix(".rel").is_some());
        items.iter().map(Item::path).find(is_description)?.to_owned()
    };
    let text = read(files, items, &description)?;
    let releases = releases_file(&text);
    if releases.is_none() {
        tracing::warn!(%app, description, "cannot be read: hot downgrades of this release will not work");
    }
    releases
}

fn read(files: &Path, items: &[Item], path: &str) -> Option<String> {
    let is_small = |item: &&Item| matches!(item, Item::File { path: p, stamp, .. } if p == path && stamp.size <= MAX_BYTES);
    items.iter().find(is_small)?;
    fs::read_to_string(files.join(path)).ok()
}

fn releases_file(description: &str) -> Option<String> {
    let Description { name, version, erts, libraries } = Description::read(description)?;
    let libraries = libraries.iter().map(|(app, version)| {
        let plain = app.trim_matches('\'');
        format!("{{{app},\"{version}\",\"lib/{plain}-{version}\"}}")
    });
    let libraries = libraries.collect::<Vec<_>>().join(",\n  ");
    Some(format!("[{{release,\"{name}\",\"{version}\",\"{erts}\",\n [{libraries}],\n permanent}}].\n"))
}

/// What a release is made of, as its `.rel` says.
pub(crate) struct Description<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
    pub(crate) erts: &'a str,
    /// Applications as Erlang writes them, in quotes where it must, with their versions.
    pub(crate) libraries: Vec<(&'a str, &'a str)>,
}

impl<'a> Description<'a> {
    /// From `{release, {Name, Vsn}, {erts, ErtsVsn}, [{App, Vsn, …}, …]}.`
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        let mut tokens = Tokens(text);
        tokens.expect("{")?;
        tokens.expect("release")?;
        for punctuation in [",", "{"] {
            tokens.expect(punctuation)?;
        }
        let name = tokens.string()?;
        tokens.expect(",")?;
        let version = tokens.string()?;
        for punctuation in ["}", ",", "{", "erts", ","] {
            tokens.expect(punctuation)?;
        }
        let erts = tokens.string()?;
        for punctuation in ["}", ",", "["] {
            tokens.expect(punctuation)?;
        }
        let mut libraries = Vec::new();
        loop {
            match tokens.next()? {
                "]" if libraries.is_empty() => break,
                "{" => {}
                _ => return None,
            }
            let app = tokens.atom()?;
            tokens.expect(",")?;
            let version = tokens.string()?;
            // The type of start and the included applications say nothing here.
            let mut depth = 1;
            while depth > 0 {
                match tokens.next()? {
                    "{" | "[" => depth += 1,
                    "}" | "]" => depth -= 1,
                    _ => {}
                }
            }
            libraries.push((app, version));
            match tokens.next()? {
                "," => {}
                "]" => break,
                _ => return None,
            }
        }
        Some(Self { name, version, erts, libraries })
    }
}

/// As much of Erlang's syntax as a release description has. Strings and quoted atoms with escapes are refused.
struct Tokens<'a>(&'a str);

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Option<&'a str> {
        loop {
            self.0 = self.0.trim_start();
            match self.0.strip_prefix('%') {
                Some(comment) => self.0 = comment.split_once('\n')?.1,
                None => break,
            }
        }
        let first = self.0.chars().next()?;
        let length = match first {
            '{' | '}' | '[' | ']' | ',' | '.' => 1,
            '"' | '\'' => {
                let inner = &self.0[1..];
                let end = inner.find([first, '\\', '\n'])?;
                if !inner[end..].starts_with(first) {
                    return None;
                }
                end + 2
            }
            c if c.is_ascii_alphanumeric() => self
                .0
                .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '@')))
                .unwrap_or(self.0.len()),
            _ => return None,
        };
        let (token, rest) = self.0.split_at(length);
        self.0 = rest;
        Some(token)
    }

    fn expect(&mut self, token: &str) -> Option<()> {
        (self.next()? == token).then_some(())
    }

    fn string(&mut self) -> Option<&'a str> {
        self.next()?.strip_prefix('"')?.strip_suffix('"')
    }

    fn atom(&mut self) -> Option<&'a str> {
        self.next().filter(|token| token.starts_with(|c: char| c.is_ascii_lowercase() || c == '\''))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_becomes_the_release_handlers_file() {
        let text = "%% coding: utf-8\n{release,{\"demo\",\"0.1.0\"},\n {erts,\"13.1.5\"},\n\
            [{kernel,\"8.5.3\",permanent},\n  {'Odd.App',\"1.0\"}, {demo,\"0.1.0\",permanent,[stdlib,{x}]}]}.\n";
        assert_eq!(
            releases_file(text).unwrap(),
            "[{release,\"demo\",\"0.1.0\",\"13.1.5\",\n [{kernel,\"8.5.3\",\"lib/kernel-8.5.3\"},\n  \
             {'Odd.App',\"1.0\",\"lib/Odd.App-1.0\"},\n  {demo,\"0.1.0\",\"lib/demo-0.1.0\"}],\n permanent}].\n"
        );
    }

    #[test]
    fn a_description_that_is_something_else_gives_nothing() {
        let good = "{release,{\"d\",\"1\"},{erts,\"13\"},[{kernel,\"8\"}]}.";
        assert!(releases_file(good).is_some());
        for end in 0..good.len() - 2 {
            assert_eq!(releases_file(&good[..end]), None, "{}", &good[..end]);
        }
        for bad in [
            "{release,{\"d\\\"x\",\"1\"},{erts,\"13\"},[]}.",
            "{release,{\"d\",\"1\"},{erts,\"13\"},[{\"kernel\",\"8\"}]}.",
            "{release,{d,\"1\"},{erts,\"13\"},[]}.",
            "% only a comment",
        ] {
            assert_eq!(releases_file(bad), None, "{bad}");
        }
    }
}
