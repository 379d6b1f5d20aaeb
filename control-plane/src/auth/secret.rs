//! Secrets that we make ourselves: session cookies, API and join tokens. Random, shown once, and kept only as a digest.
//!
//! They have 256 random bits, so a plain SHA-256 is enough to keep them by: there is nothing to guess, unlike with a
//! password, and looking one up by its digest takes the same time whatever was sent.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// What an API token begins with, so that people and secret scanners know one when they see it.
pub const TOKEN_PREFIX: &str = "dpx_";

const BYTES: usize = 32;
/// Longer than any secret of ours: what is longer was not made here.
const MAX_LENGTH: usize = 256;

/// A secret of ours. `Debug` shows nothing of it.
#[derive(Clone, Debug)]
pub struct Secret(SecretString);

#[derive(Debug, thiserror::Error)]
#[error("the system gave no random numbers, so no secret can be made")]
pub struct NoRandom;

impl Secret {
    /// A new one, after `prefix`.
    pub fn random(prefix: &str) -> Result<Self, NoRandom> {
        let mut bytes = [0; BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandom)?;
        Ok(Self(SecretString::from(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes)))))
    }

    /// One that somebody sent.
    pub fn presented(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= MAX_LENGTH && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Self(SecretString::from(text)))
    }

    /// For the one who is to have it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// What is stored instead of it.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.expose().as_bytes()).into()
    }

    /// What a session's page sends back with every change: derived, so that it needs no place in the database, and one-way,
    /// so that a script that reads it does not learn the cookie.
    pub fn csrf_token(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"deployex csrf token\0");
        hash.update(self.expose().as_bytes());
        URL_SAFE_NO_PAD.encode(hash.finalize())
    }

    /// In constant time.
    pub fn is_csrf_token(&self, presented: &[u8]) -> bool {
        self.csrf_token().as_bytes().ct_eq(presented).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_secret_is_another_and_none_is_printed() {
        let (one, two) = (Secret::random(TOKEN_PREFIX).unwrap(), Secret::random(TOKEN_PREFIX).unwrap());
        assert_ne!(one.expose(), two.expose());
        assert!(one.expose().starts_with("dpx_") && one.expose().len() == 4 + 43);
        assert!(!format!("{one:?}").contains(one.expose()));
    }

    #[test]
    fn a_presented_secret_has_the_digest_of_the_one_that_was_made() {
        let made = Secret::random("").unwrap();
        let presented = Secret::presented(made.expose()).unwrap();
        assert_eq!(made.digest(), presented.digest());
        assert!(made.is_csrf_token(presented.csrf_token().as_bytes()));
        assert!(!made.is_csrf_token(b"") && !made.is_csrf_token(made.expose().as_bytes()));
    }

    #[test]
    fn what_cannot_be_a_secret_is_not_looked_up() {
        for bad in ["", "with space", "line\nbreak", "ä", &"x".repeat(MAX_LENGTH + 1)] {
            assert!(Secret::presented(bad).is_none(), "{bad:?}");
        }
    }
}
