//! Why an answer did not come, in words for people.

use proto::problem::{FieldError, Problem};
use wasm_bindgen::{JsCast, JsValue};

#[derive(Clone, Debug, PartialEq)]
pub enum ClientError {
    /// No answer: the network, or a control plane that is down.
    Unreachable(String),
    /// The control plane said no, and why.
    Refused(Box<Problem>),
    /// Something between refused: a proxy.
    Status(u16),
    /// An answer that is none of ours.
    Unreadable(String),
}

impl ClientError {
    pub(super) fn unreachable(error: &JsValue) -> Self {
        let said = error.dyn_ref::<js_sys::Error>().map(|it| String::from(it.message()));
        Self::Unreachable(said.unwrap_or_default())
    }

    pub(super) fn no_window() -> Self {
        Self::Unreachable("there is no window".to_owned())
    }

    #[expect(clippy::needless_pass_by_value, reason = "what `map_err` gives")]
    pub(super) fn unreadable(error: serde_json::Error) -> Self {
        Self::Unreadable(error.to_string())
    }

    /// What failed, in a sentence.
    pub fn title(&self) -> String {
        match self {
            Self::Unreachable(_) => "The control plane does not answer.".to_owned(),
            Self::Refused(problem) => problem.title.clone(),
            Self::Status(status) => format!("The request was refused with status {status}."),
            Self::Unreadable(_) => "The answer could not be read.".to_owned(),
        }
    }

    /// Why, and what to do.
    pub fn detail(&self) -> String {
        match self {
            Self::Unreachable(said) if said.is_empty() => "It is tried again by itself.".to_owned(),
            Self::Unreachable(said) => format!("{said}."),
            Self::Refused(problem) => crate::words::sentence(&problem.detail),
            Self::Status(_) => {
                "It did not come from DeployEx: look at what stands in front of it.".to_owned()
            }
            Self::Unreadable(why) => {
                format!(
                    "The console and the control plane may be of different versions: load this page again. ({why})"
                )
            }
        }
    }

    pub fn sentence(&self) -> String {
        match self {
            // Its detail says it all; the title would say it twice.
            Self::Refused(_) => self.detail(),
            _ => format!("{} {}", self.title(), self.detail()),
        }
    }

    /// What is wrong with one field of a form.
    pub fn of_field(&self, path: &str) -> Option<&str> {
        let Self::Refused(problem) = self else { return None };
        problem.errors.iter().find(|it: &&FieldError| it.path == path).map(|it| it.message.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proto::problem::Code;

    use super::*;

    #[test]
    fn a_refusal_speaks_with_the_words_of_the_control_plane() {
        let mut problem = Problem::new(Code::InvalidInput, "uses is a number from 1 to 10000");
        problem
            .errors
            .push(FieldError { path: "uses".into(), message: "is a number from 1 to 10000".into() });
        let error = ClientError::Refused(Box::new(problem));
        assert_eq!(error.sentence(), "Uses is a number from 1 to 10000.");
        assert_eq!(error.of_field("uses"), Some("is a number from 1 to 10000"));
        assert_eq!(error.of_field("lifetime_ms"), None);
    }

    #[test]
    fn every_failure_says_what_and_what_to_do() {
        for error in [
            ClientError::Unreachable("Failed to fetch".into()),
            ClientError::Status(502),
            ClientError::Unreadable("expected value".into()),
        ] {
            assert!(error.title().ends_with('.') && !error.detail().is_empty(), "{error:?}");
        }
    }
}
