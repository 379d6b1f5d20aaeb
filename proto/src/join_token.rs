//! What a host needs to join: a secret that the control plane knows by its hash alone, and the fingerprint of the agents' CA,
//! by which the host knows the control plane before it trusts anything.
//!
//! Written by the control plane, read by the agent; how long and how often a token may be used is the database's business.

use std::fmt;
use std::str::FromStr;

use crate::ids::Digest;

const PREFIX: &str = "dpxj_";

/// `dpxj_{secret}.{SHA-256 of the CA's certificate, hex}`.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    secret: String,
    pub ca: Digest,
}

/// Why a text is no join token. It never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadJoinToken {
    #[error("a join token starts with {PREFIX:?}: make one with `deployex node token`")]
    Prefix,
    #[error("this join token has been cut short: copy it whole, it ends in a dot and 64 hex digits")]
    Cut,
    #[error("this join token holds characters that no join token has")]
    Characters,
}

impl JoinToken {
    /// Shorter secrets could be guessed, longer ones are a mistake.
    const SECRET: std::ops::RangeInclusive<usize> = 32..=128;

    pub fn new(secret: String, ca: Digest) -> Result<Self, BadJoinToken> {
        if !Self::SECRET.contains(&secret.len()) {
            return Err(BadJoinToken::Cut);
        }
        if !secret.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return Err(BadJoinToken::Characters);
        }
        Ok(Self { secret, ca })
    }

    /// The part that goes to the control plane, and nowhere else.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The token as it is handed to a person. Not `Display`, so that no log shows one by accident.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}.{}", self.secret, self.ca)
    }
}

impl FromStr for JoinToken {
    type Err = BadJoinToken;

    fn from_str(text: &str) -> Result<Self, BadJoinToken> {
        let rest = text.trim().strip_prefix(PREFIX).ok_or(BadJoinToken::Prefix)?;
        let (secret, ca) = rest.rsplit_once('.').ok_or(BadJoinToken::Cut)?;
        Self::new(secret.to_owned(), ca.parse().map_err(|_| BadJoinToken::Cut)?)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken(….{})", self.ca.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_as_it_was_written() {
        let token = JoinToken::new("s".repeat(43), Digest([9; 32])).unwrap();
        assert_eq!(format!("  {}\n", token.reveal()).parse::<JoinToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains("sss"));
    }

    #[test]
    fn what_is_wrong_with_a_token_is_told_without_repeating_it() {
        let good = JoinToken::new("s".repeat(43), Digest([9; 32])).unwrap().reveal();
        assert_eq!("dpx_abc".parse::<JoinToken>(), Err(BadJoinToken::Prefix));
        assert_eq!(good[..60].parse::<JoinToken>(), Err(BadJoinToken::Cut));
        assert_eq!(good[..good.len() - 1].parse::<JoinToken>(), Err(BadJoinToken::Cut));
        assert_eq!(good.replace("ss", "s ").parse::<JoinToken>(), Err(BadJoinToken::Characters));
    }
}
