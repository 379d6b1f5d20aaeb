//! Passwords: what is accepted as one, and how it is hashed and compared.
//!
//! bcrypt is slow on purpose. It runs on threads of its own, few at a time, so that a crowd of sign-ins cannot take the
//! program's processors; who would have to wait too long is told to come back.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Semaphore;

/// What a new hash costs: about a quarter of a second of one processor.
pub const COST: u32 = 12;
/// bcrypt ignores what comes after, so a longer password would be weaker than it looks.
pub const MAX_BYTES: usize = 72;
pub const MIN_CHARS: usize = 8;

/// Hashes computed at one time.
const AT_ONCE: usize = 2;
/// How long one waits for its turn.
const WAIT: Duration = Duration::from_secs(10);
/// Compared with where there is no such user, so that both take as long. The hash of a random password nobody kept.
const NOBODY: &str = "$2b$12$uSQjyOpVh0cFQE2P8YGbmOWEFhM2Y3vdf0v0fQd1yDzSHcG2cVv2y";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error(
        "a password has at most {MAX_BYTES} bytes, because bcrypt ignores what comes after; this one has {0}"
    )]
    TooLong(usize),
    #[error("a password has at least {MIN_CHARS} characters")]
    TooShort,
    #[error("a password cannot contain the character NUL")]
    Nul,
    #[error("too many sign-ins at once: try again in a moment")]
    Busy,
    #[error("the stored hash is none of bcrypt's ($2a$, $2b$ or $2y$ and 60 characters)")]
    BadHash,
    #[error("the password could not be hashed")]
    Failed,
}

/// A bcrypt hash.
#[derive(Clone)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// One that comes from configuration or from the database.
    pub fn parse(text: &str) -> Result<Self, PasswordError> {
        let version = ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| text.starts_with(prefix));
        let parsed = text.parse::<bcrypt::HashParts>().ok().filter(|_| version && text.len() == 60);
        parsed.map(|_| Self(text.to_owned())).ok_or(PasswordError::BadHash)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// It was made with less work than ours are.
    pub fn is_weak(&self) -> bool {
        self.0.parse::<bcrypt::HashParts>().is_ok_and(|parts| parts.get_cost() < COST)
    }
}

/// Never the hash: it can be attacked offline.
impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// Whether a password may be tried at all.
pub fn check_presented(password: &str) -> Result<(), PasswordError> {
    match password {
        _ if password.len() > MAX_BYTES => Err(PasswordError::TooLong(password.len())),
        _ if password.contains('\0') => Err(PasswordError::Nul),
        _ => Ok(()),
    }
}

/// Whether a password may be set.
pub fn check_new(password: &str) -> Result<(), PasswordError> {
    check_presented(password)?;
    if password.chars().count() < MIN_CHARS { Err(PasswordError::TooShort) } else { Ok(()) }
}

/// Hashes and compares, a few at a time. Clones share the limit.
#[derive(Clone, Debug)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    cost: u32,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)), cost: COST }
    }
}

impl Passwords {
    pub async fn hash(&self, password: SecretString) -> Result<PasswordHash, PasswordError> {
        check_presented(password.expose_secret())?;
        let cost = self.cost;
        let hash = self.in_turn(move || bcrypt::hash(password.expose_secret(), cost)).await?;
        hash.map(PasswordHash).map_err(|_| PasswordError::Failed)
    }

    /// Whether it is the password; with `None` (no such user) it takes as long and is not.
    pub async fn verify(
        &self,
        password: SecretString,
        hash: Option<PasswordHash>,
    ) -> Result<bool, PasswordError> {
        check_presented(password.expose_secret())?;
        let exists = hash.is_some();
        let hash = hash.map_or_else(|| NOBODY.to_owned(), |hash| hash.0);
        let matches = self.in_turn(move || bcrypt::verify(password.expose_secret(), &hash)).await?;
        matches.map(|matches| matches && exists).map_err(|_| PasswordError::BadHash)
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let turn = tokio::time::timeout(WAIT, self.turns.clone().acquire_owned());
        let permit = turn.await.map_err(|_| PasswordError::Busy)?.map_err(|_| PasswordError::Failed)?;
        let done = tokio::task::spawn_blocking(move || {
            // Held by the thread: a caller who goes away does not make room for another before the work is done.
            let _permit = permit;
            work()
        });
        done.await.map_err(|_| PasswordError::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap() -> Passwords {
        Passwords { cost: 4, ..Passwords::default() }
    }

    #[tokio::test]
    async fn a_password_is_known_by_its_hash() {
        let hash = cheap().hash("correct horse".into()).await.unwrap();
        assert!(cheap().verify("correct horse".into(), Some(hash.clone())).await.unwrap());
        assert!(!cheap().verify("correct hors".into(), Some(hash)).await.unwrap());
    }

    #[tokio::test]
    async fn the_hashes_of_older_programs_are_read() {
        let hash = bcrypt::hash_with_result("deployex", 4).unwrap();
        for version in [bcrypt::Version::TwoA, bcrypt::Version::TwoB, bcrypt::Version::TwoY] {
            let hash = PasswordHash::parse(&hash.format_for_version(version)).unwrap();
            assert!(cheap().verify("deployex".into(), Some(hash.clone())).await.unwrap());
            assert!(hash.is_weak());
        }
        for bad in ["", "deployex", "$2x$12$abc", "$argon2id$v=19$m=1"] {
            assert_eq!(PasswordHash::parse(bad).unwrap_err(), PasswordError::BadHash);
        }
    }

    #[tokio::test]
    async fn nobody_has_a_password() {
        assert!(PasswordHash::parse(NOBODY).is_ok_and(|hash| !hash.is_weak()));
        assert!(!cheap().verify("anything".into(), None).await.unwrap());
    }

    #[tokio::test]
    async fn what_bcrypt_would_cut_is_refused_with_the_reason() {
        let error = cheap().hash("ä".repeat(37).into()).await.unwrap_err();
        assert_eq!(error, PasswordError::TooLong(74));
        assert!(error.to_string().contains("72 bytes"));
        assert!(cheap().hash("x".repeat(72).into()).await.is_ok());
        assert_eq!(cheap().verify("a\0b".into(), None).await.unwrap_err(), PasswordError::Nul);
    }

    #[test]
    fn a_new_password_has_a_length() {
        assert_eq!(check_new("short"), Err(PasswordError::TooShort));
        assert_eq!(check_new("long enough for us"), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_told_so() {
        let passwords = cheap();
        let _taken = passwords.turns.acquire_many(2).await.unwrap();
        let error = passwords.verify("x".into(), None).await.unwrap_err();
        assert_eq!(error, PasswordError::Busy);
    }
}
