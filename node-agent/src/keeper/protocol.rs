//! The lines that a keeper and its agent exchange over the unix socket.
//!
//! One line, one message, words separated by blanks. To everybody who connects the keeper says `hello` first, and `exited`
//! to all when the process has ended. The keeper's first word to the agent that started it is the same `hello`, or why
//! there is nothing to say hello for. Nothing here reads or writes.

use std::fmt;
use std::io;

use proto::state::ExitCause;

use super::record::{Ended, Process};

/// Of the lines, not of the programs: a keeper may be older than the agent that takes it over, and newer. Words are only
/// ever added, at the end of a line, and who does not know them passes them over.
///
/// 2: a program may have a control group of its own; `exited` says where memory was what it lacked.
const VERSION: u32 = 2;

/// Longest line that either side accepts, its end included.
pub(crate) const MAX_LINE: usize = 512;

/// What a keeper was doing when it failed to launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Order,
    Folder,
    Detach,
    Lock,
    Socket,
    Fifo,
    StdoutLog,
    StderrLog,
    Spawn,
    Record,
    User,
    Cwd,
    Exec,
    Cgroup,
}

impl Step {
    const ALL: [(Self, &str); 14] = [
        (Self::Order, "order"),
        (Self::Folder, "folder"),
        (Self::Detach, "detach"),
        (Self::Lock, "lock"),
        (Self::Socket, "socket"),
        (Self::Fifo, "fifo"),
        (Self::StdoutLog, "stdout-log"),
        (Self::StderrLog, "stderr-log"),
        (Self::Spawn, "spawn"),
        (Self::Record, "record"),
        (Self::User, "user"),
        (Self::Cwd, "cwd"),
        (Self::Exec, "exec"),
        (Self::Cgroup, "cgroup"),
    ];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(step, _)| *step == self).map_or("unknown", |(_, word)| word)
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, it)| *it == word).map(|(step, _)| *step)
    }
}

/// A step and what the system said to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) step: Step,
    pub(crate) errno: i32,
}

impl Failure {
    /// For `map_err`: which step it was.
    pub(super) fn at<E: Into<io::Error>>(step: Step) -> impl Fn(E) -> Self {
        move |error| Self { step, errno: error.into().raw_os_error().unwrap_or(0) }
    }
}

/// What the keeper says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// This process runs and I watch it.
    Hello(Process),
    /// This process has ended and I am about to go.
    Exited(Ended),
    /// Nothing was launched.
    Failed(Failure),
    /// Nothing was launched or taken over: somebody else holds the slot.
    Held(Option<Process>),
    /// There was nothing to take over.
    Gone,
    /// A request was carried out.
    Done,
    /// A request was not carried out, and why.
    Refused(String),
    Status {
        process: Process,
        adopted: bool,
        dropped: u64,
    },
}

/// Which of the two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// What the agent asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Status,
    /// SIGTERM to the process, and after the grace SIGKILL to all that belongs to it.
    Stop {
        grace_ms: u64,
    },
    Kill,
    /// Give the current log file this name and open a fresh one.
    Rotate {
        stream: Stream,
        name: String,
    },
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello(process) => write!(f, "hello {VERSION} {}", Words(process)),
            Self::Exited(ended) => {
                let Ended { process, cause, dropped, unix_ms } = ended;
                write!(f, "exited {} {} {unix_ms} {dropped}", Words(process), cause_words(*cause))?;
                match memory_word(*cause) {
                    Some(word) => write!(f, " {word}"),
                    None => Ok(()),
                }
            }
            Self::Failed(Failure { step, errno }) => write!(f, "failed {} {errno}", step.word()),
            Self::Held(None) => f.write_str("held"),
            Self::Held(Some(process)) => write!(f, "held {}", Words(process)),
            Self::Gone => f.write_str("gone"),
            Self::Done => f.write_str("done"),
            Self::Refused(why) => write!(f, "refused {why}"),
            Self::Status { process, adopted, dropped } => {
                write!(f, "status {} {adopted} {dropped}", Words(process))
            }
        }
    }
}

impl Said {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if word == "refused" {
            return Some(Self::Refused(rest.to_owned()));
        }
        let mut words = rest.split(' ').filter(|word| !word.is_empty());
        let words = &mut words;
        let said = match word {
            // A newer keeper says more at the end of its lines; what is there keeps its place.
            "hello" => {
                let _version: u32 = number(words)?;
                Self::Hello(process(words)?)
            }
            "exited" => {
                let process = process(words)?;
                let cause = parse_cause(words.next()?, words.next()?)?;
                let (unix_ms, dropped) = (number(words)?, number(words)?);
                Self::Exited(Ended { process, cause: with_memory(cause, words.next()), dropped, unix_ms })
            }
            "failed" => {
                Self::Failed(Failure { step: Step::from_word(words.next()?)?, errno: number(words)? })
            }
            "held" => Self::Held(process(words)),
            "gone" => Self::Gone,
            "done" => Self::Done,
            "status" => Self::Status {
                process: process(words)?,
                adopted: words.next()? == "true",
                dropped: number(words)?,
            },
            _ => return None,
        };
        Some(said)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status => f.write_str("status"),
            Self::Stop { grace_ms } => write!(f, "stop {grace_ms}"),
            Self::Kill => f.write_str("kill"),
            Self::Rotate { stream: Stream::Stdout, name } => write!(f, "rotate stdout {name}"),
            Self::Rotate { stream: Stream::Stderr, name } => write!(f, "rotate stderr {name}"),
        }
    }
}

impl Request {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (word, rest) {
            ("status", "") => Some(Self::Status),
            ("kill", "") => Some(Self::Kill),
            ("stop", grace) => Some(Self::Stop { grace_ms: grace.parse().ok()? }),
            ("rotate", rest) => {
                let (stream, name) = rest.split_once(' ')?;
                let stream = match stream {
                    "stdout" => Stream::Stdout,
                    "stderr" => Stream::Stderr,
                    _ => return None,
                };
                is_file_name(name).then(|| Self::Rotate { stream, name: name.to_owned() })
            }
            _ => None,
        }
    }
}

/// Whether a log file may be called that: in its own folder, and in one line.
pub(crate) fn is_file_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && !name.contains(|c: char| c == '/' || c.is_control())
        && !matches!(name, "." | "..")
}

pub(super) fn cause_words(cause: ExitCause) -> String {
    match cause {
        ExitCause::Code(code) => format!("code {code}"),
        ExitCause::Signal(signal) => format!("signal {signal}"),
        // What it was killed for is said behind, for those who know of it.
        ExitCause::OutOfMemory(_) => "signal 9".to_owned(),
        ExitCause::Unknown => "unknown 0".to_owned(),
    }
}

/// `memory=` and the limit that it went over, in bytes.
pub(super) fn memory_word(cause: ExitCause) -> Option<String> {
    match cause {
        ExitCause::OutOfMemory(limit) => Some(format!("memory={limit}")),
        ExitCause::Code(_) | ExitCause::Signal(_) | ExitCause::Unknown => None,
    }
}

pub(super) fn with_memory(cause: ExitCause, word: Option<&str>) -> ExitCause {
    match word.and_then(|word| word.strip_prefix("memory=")?.parse().ok()) {
        Some(limit) => ExitCause::OutOfMemory(limit),
        None => cause,
    }
}

pub(super) fn parse_cause(word: &str, value: &str) -> Option<ExitCause> {
    match word {
        "code" => Some(ExitCause::Code(value.parse().ok()?)),
        "signal" => Some(ExitCause::Signal(value.parse().ok()?)),
        "unknown" => Some(ExitCause::Unknown),
        _ => None,
    }
}

struct Words<'a>(&'a Process);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Process { ticket, pid, start_ticks } = self.0;
        write!(f, "{ticket} {pid} {start_ticks}")
    }
}

fn process<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Process> {
    Some(Process { ticket: number(words)?, pid: number(words)?, start_ticks: number(words)? })
}

fn number<'a, T: std::str::FromStr>(words: &mut impl Iterator<Item = &'a str>) -> Option<T> {
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let process = Process { ticket: 3, pid: 4, start_ticks: 5 };
        let ended = |cause| Said::Exited(Ended { process, cause, dropped: 6, unix_ms: 7 });
        let mut all = vec![
            Said::Hello(process),
            ended(ExitCause::Code(3)),
            ended(ExitCause::Signal(9)),
            ended(ExitCause::Unknown),
            ended(ExitCause::OutOfMemory(0)),
            ended(ExitCause::OutOfMemory(2 << 30)),
            Said::Held(Some(process)),
            Said::Held(None),
            Said::Gone,
            Said::Done,
            Said::Refused("there is a file of that name".into()),
            Said::Status { process, adopted: true, dropped: 9 },
        ];
        all.extend(Step::ALL.map(|(step, _)| Said::Failed(Failure { step, errno: 2 })));
        for said in all {
            assert_eq!(Said::parse(&said.to_string()), Some(said));
        }
    }

    #[test]
    fn what_is_asked_is_understood() {
        for request in [
            Request::Status,
            Request::Kill,
            Request::Stop { grace_ms: 10_000 },
            Request::Rotate { stream: Stream::Stderr, name: "a b.log.1".into() },
        ] {
            assert_eq!(Request::parse(&request.to_string()), Some(request));
        }
    }

    #[test]
    fn noise_is_not_understood() {
        for line in [
            "",
            " ",
            "stop",
            "stop -1",
            "stop 1 2",
            "kill 1",
            "rotate stdout",
            "rotate stdin a",
            "rotate stdout ../a",
            "rotate stdout ..",
            "rotate stdout a\tb",
            "status x",
            "hello",
        ] {
            assert_eq!(Request::parse(line), None, "{line:?}");
        }
        for line in ["", "hello 1 2", "exited 1 2 3 code", "failed dance 2", "status 1 2 3"] {
            assert_eq!(Said::parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn a_newer_keeper_may_say_more() {
        assert_eq!(
            Said::parse("hello 2 3 4 5 and more"),
            Some(Said::Hello(Process { ticket: 3, pid: 4, start_ticks: 5 }))
        );
    }
}
