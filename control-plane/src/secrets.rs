//! The secrets that DeployEx and its applications are given: from variables, or from a file that nobody else may read.
//!
//! Read once, at the start. The three of DeployEx come from a variable first, whatever the adapter. What a secret is good for
//! is not known here; nothing of one is ever shown.

mod file;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::auth::password::PasswordHash;
use crate::config::{SecretsAdapter, SecretsFrom};

const KEY_BASE: &str = "DEPLOYEX_SECRET_KEY_BASE";
const COOKIE: &str = "DEPLOYEX_ERLANG_COOKIE";
const ADMIN: &str = "DEPLOYEX_ADMIN_HASHED_PASSWORD";
/// Erlang makes an atom of a cookie.
const MAX_COOKIE: usize = 255;

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot read the secrets file {}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the secrets file {} may be read by others than its owner (mode {mode:04o}): `chmod 600` it, and consider what it holds known", path.display())]
    Open { path: PathBuf, mode: u32 },
    // Without the parser's own words: they may quote what the file holds.
    #[error(
        "line {line} of the secrets file {} is not what it should be: a JSON object of texts, and of objects of texts",
        path.display()
    )]
    Malformed { path: PathBuf, line: usize },
    #[error(
        "DEPLOYEX_ADMIN_HASHED_PASSWORD is no bcrypt hash ($2a$, $2b$ or $2y$, 60 characters; this has {length}). \
         A shell eats $ outside of single quotes, and a compose file wants $$"
    )]
    AdminHash { length: usize },
    #[error("DEPLOYEX_ERLANG_COOKIE has 1 to {MAX_COOKIE} printable characters without spaces")]
    Cookie,
    #[error("{0:?} is no NAME/KEY")]
    BadReference(String),
    #[error("the variable {key}, for from_secret {reference}, is not set where deployex runs")]
    NoVariable { reference: String, key: String },
    #[error("from_secret {reference}: variables that begin with DEPLOYEX_ are not given to applications")]
    Ours { reference: String },
    #[error("from_secret {reference}: there is no such entry in the secrets file {}", path.display())]
    NoEntry { reference: String, path: PathBuf },
    #[error(
        "from_secret {reference}: secrets cannot be fetched from {adapter} yet; use secrets_adapter env or file"
    )]
    NotYet { reference: String, adapter: &'static str },
}

/// What was found at the start.
pub struct Secrets {
    /// From which the keys for sessions and for what is kept sealed are made.
    pub secret_key_base: Option<SecretString>,
    /// Given to replicas whose application sets none.
    pub erlang_cookie: Option<SecretString>,
    /// Of the user `admin`.
    pub admin: Option<PasswordHash>,
    others: Others,
}

/// Where `from_secret` looks.
enum Others {
    Variables(BTreeMap<String, SecretString>),
    File { path: PathBuf, entries: file::Entries },
    NotYet(&'static str),
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(…)")
    }
}

impl Secrets {
    pub fn load(from: &SecretsFrom, variables: &BTreeMap<String, String>) -> Result<Self, SecretError> {
        let mut others = match from.adapter {
            SecretsAdapter::Env => Others::Variables(secret(variables)),
            SecretsAdapter::File => {
                let path = PathBuf::from(from.path.as_deref().unwrap_or_default());
                let entries = file::read(&path)?;
                Others::File { path, entries }
            }
            adapter @ (SecretsAdapter::Aws | SecretsAdapter::Gcp) => Others::NotYet(adapter.word()),
        };
        let mut own = |key: &str| {
            let variable = variables.get(key).filter(|it| !it.is_empty()).cloned();
            variable.or_else(|| others.take_own(key))
        };
        let (key_base, cookie, admin) = (own(KEY_BASE), own(COOKIE), own(ADMIN));
        Ok(Self {
            secret_key_base: key_base.map(SecretString::from),
            erlang_cookie: cookie.map(check_cookie).transpose()?,
            admin: admin.map(|it| check_admin(&it)).transpose()?,
            others,
        })
    }

    /// The value behind `from_secret: NAME/KEY`.
    pub fn resolve(&self, reference: &str) -> Result<SecretString, SecretError> {
        let owned = || reference.to_owned();
        let (name, key) = reference
            .rsplit_once('/')
            .filter(|(name, key)| !name.is_empty() && !key.is_empty())
            .ok_or_else(|| SecretError::BadReference(owned()))?;
        match &self.others {
            Others::Variables(_) if key.starts_with("DEPLOYEX_") => {
                Err(SecretError::Ours { reference: owned() })
            }
            // A variable has no name above its key: the name is for the adapters that have one.
            Others::Variables(variables) => variables
                .get(key)
                .cloned()
                .ok_or_else(|| SecretError::NoVariable { reference: owned(), key: key.to_owned() }),
            Others::File { path, entries } => entries
                .get(name, key)
                .cloned()
                .ok_or_else(|| SecretError::NoEntry { reference: owned(), path: path.clone() }),
            Others::NotYet(adapter) => Err(SecretError::NotYet { reference: owned(), adapter }),
        }
    }
}

impl Others {
    /// One of DeployEx's own, which no application gets.
    fn take_own(&mut self, key: &str) -> Option<String> {
        match self {
            Self::File { entries, .. } => entries.take_own(key),
            Self::Variables(_) | Self::NotYet(_) => None,
        }
    }
}

fn secret(variables: &BTreeMap<String, String>) -> BTreeMap<String, SecretString> {
    variables.iter().map(|(key, value)| (key.clone(), SecretString::from(value.clone()))).collect()
}

fn check_cookie(cookie: String) -> Result<SecretString, SecretError> {
    let fits = (1..=MAX_COOKIE).contains(&cookie.len()) && cookie.bytes().all(|it| it.is_ascii_graphic());
    if fits { Ok(SecretString::from(cookie)) } else { Err(SecretError::Cookie) }
}

fn check_admin(hash: &str) -> Result<PasswordHash, SecretError> {
    PasswordHash::parse(hash).map_err(|_| SecretError::AdminHash { length: hash.len() })
}

/// For messages of the file reader.
fn malformed(path: &Path, line: usize) -> SecretError {
    SecretError::Malformed { path: path.to_owned(), line }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use secrecy::ExposeSecret as _;

    use super::*;

    const HASH: &str = "$2b$04$abcdefghijklmnopqrstuuKx9WvK9jb0sSgQnqSXnDgYxJ9l9O0Ce";

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn env() -> SecretsFrom {
        SecretsFrom { adapter: SecretsAdapter::Env, path: None }
    }

    fn in_a_file(text: &str, mode: u32) -> (tempfile::NamedTempFile, SecretsFrom) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let path = Some(file.path().display().to_string());
        (file, SecretsFrom { adapter: SecretsAdapter::File, path })
    }

    #[test]
    fn the_three_secrets_come_from_variables() {
        let hash = bcrypt::hash_with_result("deployex", 4).unwrap().to_string();
        let given = variables(&[(KEY_BASE, "k"), (COOKIE, "cookie"), (ADMIN, &hash)]);
        let secrets = Secrets::load(&env(), &given).unwrap();
        assert_eq!(secrets.secret_key_base.unwrap().expose_secret(), "k");
        assert_eq!(secrets.erlang_cookie.unwrap().expose_secret(), "cookie");
        assert_eq!(secrets.admin.unwrap().as_str(), hash);
        let none = Secrets::load(&env(), &variables(&[(COOKIE, "")])).unwrap();
        assert!(none.secret_key_base.is_none() && none.erlang_cookie.is_none() && none.admin.is_none());
    }

    #[test]
    fn a_hash_that_a_shell_has_eaten_is_refused_with_the_reason() {
        let error = Secrets::load(&env(), &variables(&[(ADMIN, "b$12$rest")])).unwrap_err().to_string();
        assert_eq!(
            error,
            "DEPLOYEX_ADMIN_HASHED_PASSWORD is no bcrypt hash ($2a$, $2b$ or $2y$, 60 characters; this has 9). \
             A shell eats $ outside of single quotes, and a compose file wants $$"
        );
        assert!(!error.contains("rest") && HASH.len() == 60);
    }

    #[test]
    fn a_cookie_with_spaces_is_refused() {
        for bad in ["a b", "a\n", "ä", &"a".repeat(256)] {
            assert!(
                matches!(Secrets::load(&env(), &variables(&[(COOKIE, bad)])), Err(SecretError::Cookie)),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_reference_names_a_variable_and_never_one_of_ours() {
        let secrets =
            Secrets::load(&env(), &variables(&[("DATABASE_URL", "postgres://x"), (COOKIE, "c")])).unwrap();
        let resolved = secrets.resolve("myapp-prod/DATABASE_URL").unwrap();
        assert_eq!(resolved.expose_secret(), "postgres://x");
        let refused = |reference: &str| secrets.resolve(reference).unwrap_err().to_string();
        assert_eq!(
            refused("x/DEPLOYEX_ERLANG_COOKIE"),
            "from_secret x/DEPLOYEX_ERLANG_COOKIE: variables that begin with DEPLOYEX_ are not given to applications"
        );
        assert_eq!(
            refused("x/OTHER"),
            "the variable OTHER, for from_secret x/OTHER, is not set where deployex runs"
        );
        assert_eq!(refused("OTHER"), "\"OTHER\" is no NAME/KEY");
    }

    #[test]
    fn a_file_holds_our_secrets_and_those_of_applications() {
        let text = r#"{
            "DEPLOYEX_ERLANG_COOKIE": "from-file",
            "DEPLOYEX_SECRET_KEY_BASE": "key-of-file",
            "myapp-prod": { "DATABASE_URL": "postgres://y" }
        }"#;
        let (_file, from) = in_a_file(text, 0o600);
        let secrets = Secrets::load(&from, &variables(&[(COOKIE, "from-variable")])).unwrap();
        assert_eq!(secrets.erlang_cookie.as_ref().unwrap().expose_secret(), "from-variable");
        assert_eq!(secrets.secret_key_base.as_ref().unwrap().expose_secret(), "key-of-file");
        assert_eq!(secrets.resolve("myapp-prod/DATABASE_URL").unwrap().expose_secret(), "postgres://y");
        assert!(matches!(secrets.resolve("myapp-prod/OTHER"), Err(SecretError::NoEntry { .. })));
        assert!(matches!(secrets.resolve("other/DATABASE_URL"), Err(SecretError::NoEntry { .. })));
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let (_file, from) = in_a_file("{}", 0o644);
        let error = Secrets::load(&from, &BTreeMap::new()).unwrap_err();
        assert!(matches!(error, SecretError::Open { mode: 0o644, .. }), "{error}");
    }

    #[test]
    fn a_malformed_file_is_named_by_line_and_quotes_nothing() {
        for text in [
            "{\n\"a\": s3cret }",
            "{\n\"a\": { \"b\": { \"s3cret\": 1 } } }",
            "[\"s3cret\"]",
            "{\n\"s3cret\": 5 }",
        ] {
            let (_file, from) = in_a_file(text, 0o600);
            let error = Secrets::load(&from, &BTreeMap::new()).unwrap_err();
            assert!(matches!(error, SecretError::Malformed { .. }), "{error}");
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn an_adapter_that_is_not_in_force_yet_says_so_when_it_is_needed() {
        let from = SecretsFrom { adapter: SecretsAdapter::Aws, path: Some("deployex-prod".to_owned()) };
        let secrets = Secrets::load(&from, &variables(&[(COOKIE, "c")])).unwrap();
        assert!(secrets.erlang_cookie.is_some());
        assert_eq!(
            secrets.resolve("a/B").unwrap_err().to_string(),
            "from_secret a/B: secrets cannot be fetched from aws yet; use secrets_adapter env or file"
        );
    }
}
