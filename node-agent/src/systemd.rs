//! A scope of systemd's for each keeper, so that nothing that happens to the agent's unit happens to it: stopping it, killing
//! it, the policy for want of memory. systemd then keeps its hands off what we make below the scope.
//!
//! ```text
//!   deployex.slice
//!   └─ deployex-keeper-4711-9.scope     one keeper and its program; gone when both are
//!      ├─ keeper
//!      └─ shop-2-17                     the program's group, with its limits
//! ```
//! Asked for over D-Bus before the keeper has anything to do, so that no restart waits for it.

mod dbus;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dbus::{Bus, CallError, Method, Writer};

/// Where systemd is the first process of the host.
const BOOTED: &str = "/run/systemd/system";
const BUS: &str = "/run/dbus/system_bus_socket";

/// systemd answers in milliseconds; one that is reloaded takes a second or two.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Newer than the oldest systemd that is meant to be served (252, Debian 12); there a scope has no such policy and goes on.
const SINCE_253: &str = "OOMPolicy";

/// Why a keeper has no scope of its own.
#[derive(Debug)]
pub enum ScopeError {
    Bus(PathBuf, CallError),
    Refused(CallError),
    Slow,
}

impl std::fmt::Display for ScopeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bus(bus, error) => write!(f, "the bus {} cannot be used: {error}", bus.display()),
            Self::Refused(error) => write!(f, "systemd does not make it: {error}"),
            Self::Slow => f.write_str("systemd has not made it in time"),
        }
    }
}

impl std::error::Error for ScopeError {}

/// systemd, as it is reached.
#[derive(Clone, Debug)]
pub struct Systemd {
    bus: PathBuf,
    proc: PathBuf,
    uid: u32,
}

impl Systemd {
    /// `None`: another program is the first of this host.
    pub fn of_this_host(uid: u32) -> Option<Self> {
        Path::new(BOOTED).is_dir().then(|| Self { bus: BUS.into(), proc: "/proc".into(), uid })
    }

    /// Gives a process a scope of its own and returns when it is in it. Waits, at most some seconds.
    pub fn scope(&self, name: &str, pid: u32) -> Result<(), ScopeError> {
        let unusable = |error| ScopeError::Bus(self.bus.clone(), error);
        let mut bus = Bus::connect(&self.bus, self.uid, PATIENCE).map_err(unusable)?;
        let manager = Method {
            destination: "org.freedesktop.systemd1",
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            member: "StartTransientUnit",
        };
        let mut start = |with: bool| bus.call(&manager, "ssa(sv)a(sa(sv))", &body(name, pid, with));
        match start(true) {
            Err(CallError::Refused(_, said)) if said.contains(SINCE_253) => start(false),
            other => other,
        }
        .map_err(ScopeError::Refused)?;
        // The answer is that it will be done.
        let deadline = now() + PATIENCE;
        while !self.is_in(pid, name) {
            if now() >= deadline {
                return Err(ScopeError::Slow);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    fn is_in(&self, pid: u32, name: &str) -> bool {
        let groups = fs::read_to_string(self.proc.join(pid.to_string()).join("cgroup")).unwrap_or_default();
        let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
        own.is_some_and(|path| path.split('/').any(|part| part == name))
    }
}

fn body(name: &str, pid: u32, with_policy: bool) -> Vec<u8> {
    let mut body = Writer::default();
    body.string(name);
    body.string("fail");
    body.array(8, |properties| {
        let mut words = vec![
            ("Description", "A replica of DeployEx and its keeper"),
            ("Slice", "deployex.slice"),
            ("CollectMode", "inactive-or-failed"),
        ];
        if with_policy {
            words.push((SINCE_253, "continue"));
        }
        for (property, value) in words {
            properties.structure();
            properties.string(property);
            properties.signature("s");
            properties.string(value);
        }
        properties.structure();
        properties.string("Delegate");
        properties.signature("b");
        properties.number(1);
        properties.structure();
        properties.string("TasksMax");
        properties.signature("t");
        properties.long(u64::MAX);
        properties.structure();
        properties.string("PIDs");
        properties.signature("au");
        properties.array(4, |pids| pids.number(pid));
    });
    body.array(8, |_| {});
    body.0
}

#[expect(clippy::disallowed_methods, reason = "how long systemd is waited for, on a thread of its own")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::net::UnixListener;
    use std::thread::JoinHandle;

    use super::dbus::tests::answer;
    use super::*;

    const NAME: &str = "deployex-keeper-42-7.scope";
    const RETURN: u8 = 2;
    const ERROR: u8 = 3;

    /// A bus with a systemd behind it, which gives each call after the first its next answer and keeps what was asked.
    fn peer(folder: &Path, answers: Vec<(u8, &'static str, bool)>) -> (Systemd, JoinHandle<Vec<Vec<u8>>>) {
        let (bus, proc) = (folder.join("bus"), folder.join("proc"));
        fs::create_dir_all(proc.join("42")).unwrap();
        let listener = UnixListener::bind(&bus).unwrap();
        let groups = proc.join("42/cgroup");
        let thread = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut write = stream.try_clone().unwrap();
            let mut read = BufReader::new(stream);
            let mut line = Vec::new();
            read.read_until(b'\n', &mut line).unwrap();
            // The number 0 in digits, and those in hexadecimal.
            assert_eq!(line, b"\0AUTH EXTERNAL 30\r\n");
            write.write_all(b"OK 1234deadbeef\r\n").unwrap();
            line.clear();
            read.read_until(b'\n', &mut line).unwrap();
            assert_eq!(line, b"BEGIN\r\n");
            let mut calls = Vec::new();
            let hello = (RETURN, "", false);
            for (kind, said, moves) in std::iter::once(hello).chain(answers) {
                let call = message(&mut read);
                // Before its answer something that nobody asked for.
                write.write_all(&answer(4, 0, "", "a signal")).unwrap();
                if moves {
                    fs::write(&groups, format!("4:memory:/\n0::/deployex.slice/{NAME}\n")).unwrap();
                }
                let serial = u32::from_le_bytes(call[8..12].try_into().unwrap());
                let error = if kind == ERROR { "org.freedesktop.DBus.Error.PropertyReadOnly" } else { "" };
                write.write_all(&answer(kind, serial, error, said)).unwrap();
                calls.push(call);
            }
            calls
        });
        (Systemd { bus, proc, uid: 0 }, thread)
    }

    fn message(read: &mut impl Read) -> Vec<u8> {
        let mut start = vec![0; 16];
        read.read_exact(&mut start).unwrap();
        let length = |at: usize| u32::from_le_bytes(start[at..at + 4].try_into().unwrap()) as usize;
        let mut rest = vec![0; length(12).next_multiple_of(8) + length(4)];
        read.read_exact(&mut rest).unwrap();
        start.extend(rest);
        start
    }

    fn holds(call: &[u8], word: &str) -> bool {
        call.windows(word.len()).any(|it| it == word.as_bytes())
    }

    #[test]
    fn a_keeper_is_put_into_a_scope_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (systemd, peer) = peer(folder.path(), vec![(RETURN, "/job/1", true)]);
        systemd.scope(NAME, 42).unwrap();
        let calls = peer.join().unwrap();
        assert!(holds(&calls[0], "Hello"));
        for word in
            ["StartTransientUnit", NAME, "deployex.slice", "Delegate", "OOMPolicy", "TasksMax", "PIDs"]
        {
            assert!(holds(&calls[1], word), "{word}");
        }
    }

    #[test]
    fn a_systemd_that_knows_no_policy_for_scopes_is_asked_without_it() {
        let folder = tempfile::tempdir().unwrap();
        let unknown = "Cannot set property OOMPolicy, or unknown property.";
        let (systemd, peer) = peer(folder.path(), vec![(ERROR, unknown, false), (RETURN, "/job/1", true)]);
        systemd.scope(NAME, 42).unwrap();
        let calls = peer.join().unwrap();
        assert!(holds(&calls[1], "OOMPolicy") && !holds(&calls[2], "OOMPolicy"));
    }

    #[test]
    fn why_there_is_no_scope_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let (systemd, peer) = peer(folder.path(), vec![(ERROR, "Access denied", false)]);
        let error = systemd.scope(NAME, 42).unwrap_err();
        assert_eq!(error.to_string(), "systemd does not make it: Access denied");
        peer.join().unwrap();
        let nobody = Systemd { bus: folder.path().join("none"), proc: "/proc".into(), uid: 0 };
        let error = nobody.scope(NAME, 42).unwrap_err().to_string();
        assert!(error.contains("/none cannot be used: No such file"), "{error}");
    }
}
