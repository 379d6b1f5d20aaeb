//! The names of things: parsed once at the border, so that nothing behind it meets a slash, a newline or an empty string.
//!
//! Every type here is `FromStr` + `Display` + serde as a string (or number). None of them says where the thing is stored.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::natural;

/// Why a name was refused. The message tells what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    #[error(
        "an application's name has 1 to 64 of a-z A-Z 0-9 _ - and starts with a letter or digit, not {0:?}"
    )]
    App(String),
    #[error("a node's name has 1 to 64 of a-z A-Z 0-9 . _ - and starts with a letter or digit, not {0:?}")]
    Node(String),
    #[error("a version has 1 to 128 of a-z A-Z 0-9 . _ + ~ - and starts with a letter or digit, not {0:?}")]
    Version(String),
    #[error("a slot is a whole number from 1 to {max}, not {found:?}", max = Slot::MAX)]
    Slot { found: String },
    #[error("a SHA-256 has 64 hex digits (optionally after \"sha256:\"), not {0:?}")]
    Digest(String),
    #[error("{0:?} is not an identifier of the form 01890a5d-ac96-774b-bcce-b302099a8057")]
    Id(String),
}

fn is_name(text: &str, max: usize, extra: &[u8]) -> bool {
    let bytes = text.as_bytes();
    (1..=max).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || extra.contains(b))
}

/// Text in error messages is cut, so that a hostile name cannot fill a log.
fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

macro_rules! as_string {
    ($type:ident) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $max:expr, $extra:expr, $bad:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
        pub struct $type(String);

        /// As people order names: by the numbers in them.
        impl Ord for $type {
            fn cmp(&self, other: &Self) -> Ordering {
                natural::compare(&self.0, &other.0)
            }
        }

        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl $type {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                if is_name(text, $max, $extra) { Ok(Self(text.to_owned())) } else { Err(BadName::$bad(cut(text))) }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        as_string!($type);
    };
}

name!(
    /// An application's name: also a folder, part of an Erlang node name and of log file names.
    AppName, 64, b"_-", App
);
name!(
    /// A node's name, as people say it. Its identity is its [`NodeId`].
    NodeName, 64, b"._-", Node
);
name!(
    /// A release's version as its maker wrote it: compared as text; which of two is newer, nothing here says.
    Version, 128, b"._+~-", Version
);

macro_rules! id {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
        pub struct $type(pub Uuid);

        impl FromStr for $type {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                Uuid::try_parse(text).map(Self).map_err(|_| BadName::Id(cut(text)))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0.hyphenated(), f)
            }
        }

        as_string!($type);
    };
}

id!(
    /// A node's identity: given at enrolment, carried in its certificate. UUIDv7.
    NodeId
);
id!(
    /// A restart that was asked for. UUIDv7.
    RestartId
);
id!(
    /// One rollout. UUIDv7.
    RolloutId
);
id!(
    /// One event. UUIDv7, so that the order of ids is the order of time.
    EventId
);
id!(
    /// One API or join token (never the token itself). UUIDv7.
    TokenId
);

/// The numbered place of a replica on a node: 1..=N at rest, N + 1 only during a `start_first` deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = u16))]
#[serde(transparent)]
pub struct Slot(u16);

impl Slot {
    /// More replicas of one application on one host than this is a mistake; it also bounds ports and folders.
    pub const MAX: u16 = 1000;
    pub const MIN: Self = Self(1);

    pub fn new(number: u32) -> Result<Self, BadName> {
        u16::try_from(number)
            .ok()
            .filter(|n| (1..=Self::MAX).contains(n))
            .map(Self)
            .ok_or_else(|| BadName::Slot { found: number.to_string() })
    }

    pub fn number(self) -> u16 {
        self.0
    }
}

impl FromStr for Slot {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        text.parse::<u32>().map_err(|_| BadName::Slot { found: cut(text) }).and_then(Self::new)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for Slot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(u32::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// The SHA-256 of a release's tarball.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The first twelve hex digits: enough for people to tell two tarballs apart.
    pub fn short(&self) -> String {
        self.to_string().chars().take(12).collect()
    }
}

impl FromStr for Digest {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = || BadName::Digest(cut(text));
        let hex = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        if hex.len() != 64 {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok()).ok_or_else(bad);
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<&[u8]> for Digest {
    type Error = BadName;

    fn try_from(bytes: &[u8]) -> Result<Self, BadName> {
        bytes.try_into().map(Self).map_err(|_| BadName::Digest(format!("{} bytes", bytes.len())))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({}…)", self.short())
    }
}

as_string!(Digest);

/// Which release of an application: its version and the digest of its tarball. The same version with another tarball is
/// another release.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReleaseKey {
    pub version: Version,
    pub sha256: Digest,
}

impl fmt::Display for ReleaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.version, self.sha256.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_a_folder_or_a_line_are_refused() {
        for bad in ["", ".", "..", "a/b", "-a", "a b", "a\n", "ä", "a\0b", &"a".repeat(65)] {
            assert!(bad.parse::<AppName>().is_err(), "{bad:?}");
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
        }
        assert!("../1.0".parse::<Version>().is_err());
        assert_eq!("my-app_2".parse::<AppName>().unwrap().to_string(), "my-app_2");
        assert_eq!("1.0.0-rc.1+build~2".parse::<Version>().unwrap().as_str(), "1.0.0-rc.1+build~2");
    }

    #[test]
    fn a_refused_name_is_cut_in_its_message() {
        let error = "/".repeat(10_000).parse::<AppName>().unwrap_err();
        assert!(error.to_string().len() < 300);
    }

    #[test]
    fn a_digest_reads_with_and_without_its_prefix() {
        let hex = "00ff".repeat(16);
        let digest: Digest = format!("sha256:{}", hex.to_uppercase()).parse().unwrap();
        assert_eq!(digest.to_string(), hex);
        assert_eq!(hex.parse::<Digest>().unwrap(), digest);
        for bad in ["", "sha256:", &"0".repeat(63), &"g".repeat(64), &"ä".repeat(32)] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn slots_begin_at_one() {
        assert!(Slot::new(0).is_err());
        assert!(Slot::new(1001).is_err());
        assert_eq!("3".parse::<Slot>().unwrap().number(), 3);
    }

    #[test]
    fn names_survive_json() {
        let key = ReleaseKey { version: "1.0".parse().unwrap(), sha256: Digest([7; 32]) };
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<ReleaseKey>(&json).unwrap(), key);
        assert!(serde_json::from_str::<AppName>("\"../x\"").is_err());
    }
}
