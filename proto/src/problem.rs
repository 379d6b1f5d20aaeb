//! How the HTTP API says no: `application/problem+json` with a stable code. Every code there is stands in this file.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The media type of a [`Problem`].
pub const MEDIA_TYPE: &str = "application/problem+json";

/// A refusal, for people (`title`, `detail`) and for programs (`code`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// `urn:deployex:problem:{code}`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same sentence for every problem of this code.
    pub title: String,
    pub status: u16,
    /// What is wrong this time, and what to do about it.
    pub detail: String,
    pub code: Code,
    /// The id of this request, as in the program's log.
    pub instance: String,
    /// For input: what is wrong where.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldError {
    /// The key in the request, `a.b` for a nested one.
    pub path: String,
    pub message: String,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $word:literal, $status:literal, $title:literal);+ $(;)?) => {
        /// What went wrong, for programs. A code never changes its meaning; new ones may come.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $word)] $variant,)+
            /// A code that this program is too old to know.
            #[serde(other)]
            Unknown,
        }

        impl Code {
            /// Every code that the API gives.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ Self::Unknown => "unknown" }
            }

            /// The HTTP status that goes with it.
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ Self::Unknown => 500 }
            }

            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ Self::Unknown => "The request was refused." }
            }
        }
    };
}

codes! {
    InvalidInput = "invalid-input", 422, "The request says something that cannot be.";
    MalformedRequest = "malformed-request", 400, "The request could not be read.";
    TooLarge = "too-large", 413, "The request is larger than is accepted.";
    UnsupportedMediaType = "unsupported-media-type", 415, "The request's body must be JSON.";
    MethodNotAllowed = "method-not-allowed", 405, "This address does not answer to this method.";
    NotFound = "not-found", 404, "There is no such thing.";
    NotSignedIn = "not-signed-in", 401, "This needs a signed-in user or a token.";
    WrongCredentials = "wrong-credentials", 401, "The user name or the password is wrong.";
    TooManyAttempts = "too-many-attempts", 429, "Too many attempts to sign in.";
    NotAllowed = "not-allowed", 403, "Your role does not allow this.";
    CsrfMissing = "csrf-missing", 403, "The request does not prove that it comes from the console.";
    ForeignOrigin = "foreign-origin", 403, "The request comes from another site.";
    WrongHost = "wrong-host", 421, "This address is not served under that host name.";
    Conflict = "conflict", 409, "This cannot be done in the present state.";
    Ghosted = "ghosted", 409, "The release is ghosted: it failed to become stable before.";
    ReleaseMissing = "release-missing", 409, "The release is not in the bucket.";
    NotHot = "not-hot", 409, "The release cannot take over by hot upgrades alone.";
    NodeNotConnected = "node-not-connected", 503, "The node is not connected.";
    NotReady = "not-ready", 503, "The program is starting or stopping.";
    TooBusy = "too-busy", 503, "Too much is going on at once.";
    TimedOut = "timed-out", 504, "It took too long.";
    Internal = "internal", 500, "Something went wrong here.";
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:deployex:problem:{code}"),
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            code,
            instance: String::new(),
            errors: Vec::new(),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_same_in_json_and_in_words() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.word());
            assert!((400..600).contains(&code.status()), "{code}");
        }
    }

    #[test]
    fn a_code_of_a_newer_program_still_reads() {
        assert_eq!(serde_json::from_str::<Code>("\"brand-new\"").unwrap(), Code::Unknown);
    }
}
