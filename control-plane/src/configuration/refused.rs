//! Why a configuration was not planned or not put in force. Nothing of it was.

use proto::problem::{Code, FieldError};

use crate::config::apply::ApplyError;
use crate::config::{CannotEdit, Fault, Faults, Origin};
use crate::db::{ConfigurationVersion, DbError};
use crate::error::ApiError;
use crate::vault::VaultError;

#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Faults(#[from] Faults),
    #[error("another configuration was put in force since it was planned against version {base}")]
    Outrun {
        base: u64,
        /// Newest first.
        between: Vec<ConfigurationVersion>,
    },
    #[error("{name} holds another text than the one that was planned: plan again")]
    OtherText { name: String },
    #[error("the control plane was started without a file: there is none to apply")]
    NoFile,
    #[error("{path} cannot be read: {why}")]
    FileUnreadable { path: String, why: String },
    #[error("there is no version {number} of the configuration")]
    NoVersion { number: u64 },
    #[error(transparent)]
    CannotEdit(#[from] CannotEdit),
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("a version of the configuration cannot be sealed or opened")]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Faults(faults) => Self::new(Code::InvalidInput, faults.to_string())
                .with_errors(faults.faults.iter().map(field_error).collect()),
            Refused::Outrun { base, between } => Self::new(Code::Conflict, outrun(base, &between)),
            Refused::NoVersion { .. } => Self::new(Code::NotFound, refused.to_string()),
            Refused::OtherText { .. }
            | Refused::NoFile
            | Refused::FileUnreadable { .. }
            | Refused::CannotEdit(_) => Self::new(Code::Conflict, refused.to_string()),
            Refused::Db(error) => error.into(),
            Refused::Vault(error) => Self::internal(error),
            Refused::Apply(error) => Self::internal(error),
        }
    }
}

/// For the second of two people: who was first.
fn outrun(base: u64, between: &[ConfigurationVersion]) -> String {
    let first: Vec<String> = between
        .iter()
        .rev()
        .map(|it| {
            let at = proto::timestamp::Timestamp::from(it.at);
            format!(
                "{} applied version {} at {at} ({}: {})",
                it.by,
                it.number,
                it.origin,
                it.changes.counted()
            )
        })
        .collect();
    match first.as_slice() {
        [] => format!("there is no version {base} to apply anything against: plan again"),
        some => format!("nothing was applied: since version {base}, {}; plan again", some.join("; ")),
    }
}

/// Where a fault is, and what it is.
pub(super) fn field_error(fault: &Fault) -> FieldError {
    let at = match &fault.origin {
        Origin::File { line, column } => format!("line {line}, column {column}: "),
        Origin::WholeFile => String::new(),
        Origin::Variable(name) => format!("in the variable {name}: "),
        Origin::Flag(flag) => format!("in {flag}: "),
    };
    FieldError { path: fault.path.clone(), message: format!("{at}{}", fault.message()) }
}
