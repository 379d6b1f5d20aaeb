//! What the agent tells a new keeper on its standard input, as bytes: launch this, or take over what runs here.
//!
//! The order never touches a disk or an argument list, because the environment in it holds secrets. The form is a magic
//! word, a length and fields ended by NUL, which no path, argument or variable can hold; so the keeper needs no parser that
//! could be confused and no library.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Tells an order apart from noise. What is added to one stands at its end under a name, and who does not know the name passes
/// it over; so the word need not change for it.
const MAGIC: &[u8; 8] = b"dpx-kpr1";

/// More than the kernel takes for arguments and environment of an ordinary program is a mistake, and the keeper's memory
/// is small.
const MAX_BYTES: usize = 1 << 20;

/// The mode of log files: they may hold anything the application prints.
pub const LOG_MODE: u32 = 0o600;

/// Whom a program runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserIds {
    pub uid: u32,
    pub gid: u32,
    /// The supplementary groups, all of them: none are added to these.
    pub groups: Vec<u32>,
}

/// A program to be run in a slot. Its standard input is empty and its environment is `env` and nothing else.
#[derive(Clone, PartialEq, Eq)]
pub struct LaunchSpec {
    /// Tells this launch from all others of the slot; written down before the program exists.
    pub ticket: u64,
    /// Absolute: nothing is searched for.
    pub program: PathBuf,
    /// Without the program itself.
    pub args: Vec<OsString>,
    pub env: BTreeMap<OsString, OsString>,
    pub cwd: PathBuf,
    /// `None`: the user of the agent.
    pub user: Option<UserIds>,
    pub stdout_log: PathBuf,
    pub stderr_log: PathBuf,
    /// The mode of a log file that has to be made, [`LOG_MODE`] or 0640.
    pub log_mode: u32,
}

impl fmt::Debug for LaunchSpec {
    /// Names the variables but never says what is in them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ticket, program, args, env, cwd, user, stdout_log, stderr_log, log_mode } = self;
        f.debug_struct("LaunchSpec")
            .field("ticket", ticket)
            .field("program", program)
            .field("args", args)
            .field("env", &env.keys())
            .field("cwd", cwd)
            .field("user", user)
            .field("stdout_log", stdout_log)
            .field("stderr_log", stderr_log)
            .field("log_mode", &format_args!("{log_mode:o}"))
            .finish()
    }
}

/// What a keeper is started for, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one of it, for as long as a launch takes")]
pub(crate) enum Order {
    Launch {
        slot: PathBuf,
        spec: LaunchSpec,
        /// The group that the program begins in, made and limited already; `None`: that of its keeper.
        cgroup: Option<PathBuf>,
    },
    Adopt {
        slot: PathBuf,
    },
}

/// Since version 2.
const CGROUP: &str = "cgroup";

/// Why bytes are not an order, or an order cannot be put into bytes.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    #[error("cannot read the order")]
    Read(#[from] io::Error),
    #[error("the order is not from an agent of this version")]
    Foreign,
    #[error("the order has {0} bytes, more than {MAX_BYTES}; most of it is arguments and environment")]
    TooLong(usize),
    #[error("{0} holds a NUL byte, which no program can be given")]
    Nul(&'static str),
    #[error("{0} is missing from the order or does not make sense")]
    Field(&'static str),
}

impl Order {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, SpecError> {
        let mut out = Writer::default();
        match self {
            Self::Adopt { slot } => {
                out.field("the mode", "adopt")?;
                out.field("the slot's folder", slot)?;
            }
            Self::Launch { slot, spec, cgroup } => {
                out.field("the mode", "launch")?;
                out.field("the slot's folder", slot)?;
                spec.write(&mut out)?;
                if let Some(cgroup) = cgroup {
                    out.field("the name of an addition", CGROUP)?;
                    out.field("the control group", cgroup)?;
                }
            }
        }
        let body = out.0;
        if body.len() > MAX_BYTES {
            return Err(SpecError::TooLong(body.len()));
        }
        let length = u32::try_from(body.len()).map_err(|_| SpecError::TooLong(body.len()))?;
        let mut bytes = Vec::with_capacity(MAGIC.len() + 4 + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// Reads exactly one order and not a byte more.
    pub(crate) fn read(from: &mut impl Read) -> Result<Self, SpecError> {
        let mut magic = [0; MAGIC.len()];
        from.read_exact(&mut magic)?;
        if &magic != MAGIC {
            return Err(SpecError::Foreign);
        }
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_BYTES {
            return Err(SpecError::TooLong(length));
        }
        let mut body = vec![0; length];
        from.read_exact(&mut body)?;
        let mut fields = Reader(&body);
        let mode = fields.next("the mode")?;
        let slot = PathBuf::from(fields.next("the slot's folder")?);
        let order = match mode.as_bytes() {
            b"adopt" => Self::Adopt { slot },
            b"launch" => {
                let spec = LaunchSpec::read(&mut fields)?;
                let cgroup = additions(&mut fields)?;
                Self::Launch { slot, spec, cgroup }
            }
            _ => return Err(SpecError::Field("the mode")),
        };
        if fields.0.is_empty() { Ok(order) } else { Err(SpecError::Field("the end")) }
    }

    pub(crate) fn slot(&self) -> &Path {
        let (Self::Launch { slot, .. } | Self::Adopt { slot }) = self;
        slot
    }
}

/// Pairs of a name and a value, up to the end.
fn additions(fields: &mut Reader<'_>) -> Result<Option<PathBuf>, SpecError> {
    let mut cgroup = None;
    while !fields.0.is_empty() {
        let name = fields.next("the name of an addition")?;
        let value = fields.next("an addition")?;
        if name == CGROUP {
            cgroup = Some(PathBuf::from(value));
        }
    }
    Ok(cgroup)
}

impl LaunchSpec {
    fn write(&self, out: &mut Writer) -> Result<(), SpecError> {
        let Self { ticket, program, args, env, cwd, user, stdout_log, stderr_log, log_mode } = self;
        out.number(*ticket)?;
        out.field("the program", program)?;
        out.field("the working folder", cwd)?;
        out.field("the path of a log", stdout_log)?;
        out.field("the path of a log", stderr_log)?;
        out.number(u64::from(*log_mode))?;
        match user {
            None => out.field("the user", "")?,
            Some(UserIds { uid, gid, groups }) => {
                out.field("the user", "as")?;
                out.number(u64::from(*uid))?;
                out.number(u64::from(*gid))?;
                out.number(groups.len() as u64)?;
                for group in groups {
                    out.number(u64::from(*group))?;
                }
            }
        }
        out.number(args.len() as u64)?;
        for arg in args {
            out.field("an argument", arg)?;
        }
        out.number(env.len() as u64)?;
        for (name, value) in env {
            if name.is_empty() || name.as_bytes().contains(&b'=') {
                return Err(SpecError::Field("the name of a variable"));
            }
            out.field("the name of a variable", name)?;
            out.field("a variable", value)?;
        }
        Ok(())
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, SpecError> {
        let ticket = fields.number("the ticket")?;
        let program = PathBuf::from(fields.next("the program")?);
        let cwd = PathBuf::from(fields.next("the working folder")?);
        let stdout_log = PathBuf::from(fields.next("the path of a log")?);
        let stderr_log = PathBuf::from(fields.next("the path of a log")?);
        let log_mode = fields.number32("the mode of the logs")?;
        let user = match fields.next("the user")?.as_bytes() {
            b"" => None,
            _ => Some(UserIds {
                uid: fields.number32("the user")?,
                gid: fields.number32("the group")?,
                groups: (0..fields.number("the groups")?)
                    .map(|_| fields.number32("a group"))
                    .collect::<Result<_, _>>()?,
            }),
        };
        let args = (0..fields.number("the arguments")?)
            .map(|_| Ok(fields.next("an argument")?.to_owned()))
            .collect::<Result<_, SpecError>>()?;
        let env = (0..fields.number("the environment")?)
            .map(|_| {
                Ok((fields.next("the name of a variable")?.to_owned(), fields.next("a variable")?.to_owned()))
            })
            .collect::<Result<_, SpecError>>()?;
        Ok(Self { ticket, program, args, env, cwd, user, stdout_log, stderr_log, log_mode })
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn field(&mut self, what: &'static str, value: impl AsRef<OsStr>) -> Result<(), SpecError> {
        let bytes = value.as_ref().as_bytes();
        if bytes.contains(&0) {
            return Err(SpecError::Nul(what));
        }
        self.0.extend_from_slice(bytes);
        self.0.push(0);
        Ok(())
    }

    fn number(&mut self, value: u64) -> Result<(), SpecError> {
        self.field("a number", value.to_string())
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn next(&mut self, what: &'static str) -> Result<&'a OsStr, SpecError> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(SpecError::Field(what))?;
        let (value, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        Ok(OsStr::from_bytes(value))
    }

    fn number(&mut self, what: &'static str) -> Result<u64, SpecError> {
        self.next(what)?.to_str().and_then(|text| text.parse().ok()).ok_or(SpecError::Field(what))
    }

    fn number32(&mut self, what: &'static str) -> Result<u32, SpecError> {
        u32::try_from(self.number(what)?).map_err(|_| SpecError::Field(what))
    }
}

/// A path as one word of a line, whatever bytes it has.
pub(super) fn word(path: &Path) -> String {
    use fmt::Write as _;
    path.as_os_str().as_bytes().iter().fold(String::new(), |mut out, byte| {
        match byte {
            b'%' | 0..=b' ' | 127.. => _ = write!(out, "%{byte:02x}"),
            _ => out.push(char::from(*byte)),
        }
        out
    })
}

/// The path that [`word`] was made of.
pub(super) fn unword(word: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    Some(PathBuf::from(OsString::from_vec(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> LaunchSpec {
        LaunchSpec {
            ticket: 7,
            program: "/srv/a b/bin/demo".into(),
            args: vec!["start".into(), "".into(), OsString::from_vec(vec![0xff, b'\n'])],
            env: [("PATH".into(), "/bin".into()), ("EMPTY".into(), "".into())].into(),
            cwd: "/srv".into(),
            user: Some(UserIds { uid: 65534, gid: 65534, groups: vec![4, 5] }),
            stdout_log: "/var/log/a.log".into(),
            stderr_log: "/var/log/b.log".into(),
            log_mode: LOG_MODE,
        }
    }

    #[test]
    fn an_order_comes_back_as_it_was() {
        let mut plain = spec();
        plain.user = None;
        plain.env.clear();
        plain.args.clear();
        for order in [
            Order::Adopt { slot: "/slot".into() },
            Order::Launch { slot: "/slot".into(), spec: spec(), cgroup: None },
            Order::Launch { slot: "/slot".into(), spec: plain, cgroup: Some("/sys/fs/cgroup/a-1-7".into()) },
        ] {
            let mut bytes = order.encode().unwrap();
            bytes.extend_from_slice(b"status\n");
            let mut from = bytes.as_slice();
            assert_eq!(Order::read(&mut from).unwrap(), order);
            assert_eq!(from, b"status\n", "what follows the order is left for the reader after it");
        }
    }

    #[test]
    fn what_a_newer_agent_adds_to_an_order_is_passed_over() {
        let order = Order::Launch { slot: "/slot".into(), spec: spec(), cgroup: Some("/group".into()) };
        let mut bytes = order.encode().unwrap();
        bytes.extend_from_slice(b"colour\0red\0");
        let length = u32::try_from(bytes.len() - 12).unwrap();
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        assert_eq!(Order::read(&mut bytes.as_slice()).unwrap(), order);
        // A name without its value is no addition.
        let cut = bytes.len() - 4;
        bytes.truncate(cut);
        bytes[8..12].copy_from_slice(&(length - 4).to_be_bytes());
        assert!(Order::read(&mut bytes.as_slice()).is_err());
    }

    #[test]
    fn an_order_that_is_cut_off_anywhere_is_refused() {
        let bytes = Order::Launch { slot: "/slot".into(), spec: spec(), cgroup: None }.encode().unwrap();
        for end in 0..bytes.len() {
            assert!(Order::read(&mut &bytes[..end]).is_err(), "cut at {end}");
        }
        // Also where the length agrees with what is there, but fields are missing.
        for end in 12..bytes.len() - 1 {
            let mut cut = bytes[..end].to_vec();
            cut[8..12].copy_from_slice(&u32::try_from(end - 12).unwrap().to_be_bytes());
            assert!(Order::read(&mut cut.as_slice()).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn an_order_that_cannot_be_given_is_refused_by_name() {
        let mut nul = spec();
        nul.args.push(OsString::from_vec(vec![b'a', 0]));
        assert!(matches!(
            Order::Launch { slot: "/".into(), spec: nul, cgroup: None }.encode(),
            Err(SpecError::Nul("an argument"))
        ));
        let mut name = spec();
        name.env.insert("A=B".into(), "c".into());
        assert!(matches!(
            Order::Launch { slot: "/".into(), spec: name, cgroup: None }.encode(),
            Err(SpecError::Field(_))
        ));
        let mut long = spec();
        long.args.push("x".repeat(MAX_BYTES).into());
        assert!(matches!(
            Order::Launch { slot: "/".into(), spec: long, cgroup: None }.encode(),
            Err(SpecError::TooLong(_))
        ));
        let mut huge = MAGIC.to_vec();
        huge.extend_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(Order::read(&mut huge.as_slice()), Err(SpecError::TooLong(_))));
    }

    #[test]
    fn a_debug_line_says_no_secret() {
        let mut secret = spec();
        secret.env.insert("RELEASE_COOKIE".into(), "hush".into());
        let line = format!("{secret:?}");
        assert!(line.contains("RELEASE_COOKIE") && !line.contains("hush"), "{line}");
    }

    #[test]
    fn a_path_of_any_bytes_is_one_word() {
        for path in ["/var/log/a.log", "/a b/%41", "/\u{e4}\n"] {
            let path = PathBuf::from(path);
            assert!(!word(&path).contains([' ', '\n']));
            assert_eq!(unword(&word(&path)), Some(path));
        }
        assert_eq!(unword("%4"), None);
        assert_eq!(unword("%zz"), None);
    }
}
