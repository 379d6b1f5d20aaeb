//! What a page has of a thing: nothing yet, the thing (perhaps with a failure since), a failure, or word that it is gone.

use crate::shared::Shared;

#[derive(Debug, Default)]
pub enum Look<T> {
    #[default]
    Awaited,
    Here {
        value: Shared<T>,
        /// It could not be read again since; `value` is the last that is known.
        fault: Option<String>,
    },
    Failed(String),
    Gone,
}

impl<T> Look<T> {
    pub fn here(value: T) -> Self {
        Self::Here { value: Shared::new(value), fault: None }
    }

    pub fn value(&self) -> Option<&Shared<T>> {
        match self {
            Self::Here { value, .. } => Some(value),
            Self::Awaited | Self::Failed(_) | Self::Gone => None,
        }
    }

    pub fn fault(&self) -> Option<&str> {
        match self {
            Self::Here { fault, .. } => fault.as_deref(),
            Self::Failed(fault) => Some(fault),
            Self::Awaited | Self::Gone => None,
        }
    }

    /// After a failure: what was known stays.
    #[must_use]
    pub fn failed(self, why: &str) -> Self {
        match self {
            Self::Here { value, .. } => Self::Here { value, fault: Some(why.to_owned()) },
            Self::Awaited | Self::Failed(_) | Self::Gone => Self::Failed(why.to_owned()),
        }
    }
}

impl<T> Clone for Look<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Awaited => Self::Awaited,
            Self::Here { value, fault } => Self::Here { value: value.clone(), fault: fault.clone() },
            Self::Failed(fault) => Self::Failed(fault.clone()),
            Self::Gone => Self::Gone,
        }
    }
}

impl<T> PartialEq for Look<T> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Awaited, Self::Awaited) | (Self::Gone, Self::Gone) => true,
            (Self::Here { value, fault }, Self::Here { value: other, fault: other_fault }) => {
                value == other && fault == other_fault
            }
            (Self::Failed(fault), Self::Failed(other)) => fault == other,
            _ => false,
        }
    }
}
