//! Expressions that a replica's Erlang node evaluates for somebody, and what comes of them.

use serde::{Deserialize, Serialize};

use crate::ids::{AppName, NodeName, Slot};

/// No longer expression is taken, in bytes.
pub const LONGEST_EXPRESSION: usize = 16 << 10;

/// For an expression that says nothing of its time.
pub const DEFAULT_TIMEOUT_MS: u64 = 10_000;

/// No expression is given more.
pub const LONGEST_TIMEOUT_MS: u64 = 300_000;

/// The body of a request to evaluate something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewEvaluation {
    /// At most 16 KiB.
    pub expression: String,
    /// Absent: Elixir where that is loaded, else Erlang; of an application in Gleam, Erlang.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<Spoken>,
    /// After this it is ended on the node: 1 to 300000; absent: 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// What an expression is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Spoken {
    Elixir,
    Erlang,
}

impl Spoken {
    pub fn word(self) -> &'static str {
        match self {
            Self::Elixir => "elixir",
            Self::Erlang => "erlang",
        }
    }
}

/// What came of an expression, on one replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Evaluation {
    pub application: AppName,
    pub node: NodeName,
    pub slot: Slot,
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What it was read as; absent: it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<Spoken>,
    /// What it printed to its group leader, at most 64 KiB.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub printed: String,
    /// Bytes that it printed beyond those.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub printed_dropped: u64,
    /// On the node; there and back included.
    pub took_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// As its language writes it.
    Value {
        value: String,
        /// That is not all of it.
        cut: bool,
    },
    Raised {
        /// `error`, `exit` or `throw`; `syntax`: it was not even begun.
        class: String,
        message: String,
        /// A line for each frame; may be empty.
        stacktrace: String,
        /// The message is not all.
        cut: bool,
    },
    /// It was ended on the node.
    TimedOut,
    /// The node does not answer, in that time or beyond it; what it was asked is ended there as soon as it does.
    NoAnswer,
    /// It is not known what came of it, or whether it was begun.
    Unknown { because: String },
    /// It was not begun.
    Refused { because: String },
}

impl Outcome {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Value { .. } => "value",
            Self::Raised { .. } => "raised",
            Self::TimedOut => "timed-out",
            Self::NoAnswer => "no-answer",
            Self::Unknown { .. } => "unknown",
            Self::Refused { .. } => "refused",
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_told_by_its_word() {
        let evaluation = Evaluation {
            application: "shop".parse().unwrap(),
            node: "web-1".parse().unwrap(),
            slot: "1".parse().unwrap(),
            outcome: Outcome::Value { value: "2".to_owned(), cut: false },
            language: Some(Spoken::Erlang),
            printed: String::new(),
            printed_dropped: 0,
            took_ms: 7,
        };
        let json = serde_json::to_value(&evaluation).unwrap();
        assert_eq!((json["outcome"].as_str(), json["value"].as_str()), (Some("value"), Some("2")));
        assert!(json.get("printed").is_none(), "{json}");
        assert_eq!(serde_json::from_value::<Evaluation>(json).unwrap(), evaluation);
        for outcome in [Outcome::TimedOut, Outcome::NoAnswer, Outcome::Unknown { because: "gone".to_owned() }]
        {
            assert_eq!(serde_json::to_value(&outcome).unwrap()["outcome"], outcome.word());
        }
    }
}
