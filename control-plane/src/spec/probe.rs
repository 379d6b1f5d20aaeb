//! Probes of an application, as `ready` and `live` of `deployex.yaml` name them: what is asked, and how often.
//!
//! Asking is the agent's work, and so is what an answer means.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Millis;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub ask: Ask,
    /// Between an answer and the next question; `None`: 5 s while all is well, 1 s once an answer was not as it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Millis>,
    /// Over the whole of a question.
    pub timeout: Millis,
    /// So many answers of one kind in a row count: for `ready` to become ready and to be so no more, for `live` to be ended.
    pub after: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// That its process lives.
    Process,
    /// That a port takes connections; `None`: the first.
    Tcp { port: Option<String> },
    /// That GET is answered with this status.
    Http { port: Option<String>, path: String, expect: u16 },
    /// That a command ends with status 0.
    Exec { command: String },
    /// That its Erlang node answers and this OTP application is started there; `None`: the one of its own name.
    Otp { application: Option<String> },
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ask, interval, timeout, after } = self;
        let first = "the first port";
        match ask {
            Ask::Process => return f.write_str("process"),
            Ask::Tcp { port } => write!(f, "tcp on {}", port.as_deref().unwrap_or(first))?,
            Ask::Http { port, path, expect } => {
                write!(f, "http {path} on {} expecting {expect}", port.as_deref().unwrap_or(first))?;
            }
            Ask::Exec { command } => write!(f, "exec `{command}`")?,
            Ask::Otp { application } => {
                write!(f, "otp of {}", application.as_deref().unwrap_or("the application's own name"))?;
            }
        }
        if let Some(interval) = interval {
            write!(f, " every {} ms", interval.0)?;
        }
        write!(f, " within {} ms after {after}", timeout.0)
    }
}
