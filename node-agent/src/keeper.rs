//! The keeper: the tiny process that is the parent of one BEAM and outlives the agent.
//!
//! ```text
//!   agent ──order──▶ keeper ──fork──▶ child, writes `process` ──exec──▶ program
//!     ▲                │  ▲                                               │
//!     └── keeper.sock ─┘  └────────── stdout.fifo, stderr.fifo ◀──────────┘
//!                      └──▶ log files, `exit`
//! ```
//! It drains the program's output into its logs, waits for its end, writes that down and goes. It decides nothing: whether
//! and when there is a successor is the agent's business. Every step leaves the folder in a state that the next keeper or
//! agent understands, for each of them may be killed at any instant; the laws are in `locks`, `launcher` and `log_file`.
//!
//! One thread, no runtime, no allocation that grows: there is one of these for every replica.

mod adopt;
pub(crate) mod fifo;
mod launcher;
pub(crate) mod locks;
mod log_file;
pub(crate) mod procfs;
pub(crate) mod protocol;
mod reap;
pub(crate) mod record;
mod signals;
mod socket;
pub(crate) mod spec;
mod start;
mod watch;

use std::env;
use std::io;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use rustix::process::{getpid, set_child_subreaper, setsid};
use rustix::stdio::dup2_stdin;

use protocol::{Failure, Said, Step};
use signals::Signals;
use spec::Order;

use crate::cgroup::Cgroup;
use crate::oom;

/// In the slot's folder, which is 0700: whoever reaches it may stop the program.
pub(crate) const SOCKET: &str = "keeper.sock";

/// The slot's folder is the keeper's working folder: the path of a socket may have 108 bytes, that of a folder 4096.
const HERE: &str = ".";

/// The whole program of `deployex-keeper`.
pub fn main() -> ExitCode {
    match env::args_os().nth(1) {
        Some(_) => usage(),
        None => match io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from) {
            Ok(agent) if agent.peer_addr().is_ok() => keep(agent),
            _ => usage(),
        },
    }
}

fn usage() -> ExitCode {
    let _ = writeln!(
        io::stderr(),
        "deployex-keeper is started by deployex-agent, for one replica each; not by hand"
    );
    ExitCode::from(2)
}

fn keep(mut agent: UnixStream) -> ExitCode {
    match begin(&mut agent) {
        Ok(start::Started { mut watch, locks }) => {
            let greeting = watch.greeting();
            watch.clients.add(agent, &[greeting]);
            let cgroup = watch.run();
            drop(locks);
            // A successor does not wait for it. Somebody who hangs in the kernel may still be in it: then the agent sweeps.
            if let Some(cgroup) = cgroup {
                let _ = cgroup.remove();
            }
            ExitCode::SUCCESS
        }
        Err(said) => {
            let _ = writeln!(agent, "{said}");
            ExitCode::FAILURE
        }
    }
}

fn begin(agent: &mut UnixStream) -> Result<start::Started, Said> {
    oom::spare_me();
    let order = Order::read(agent).map_err(|error| match error {
        spec::SpecError::Read(error) => start::failed(Step::Order)(error),
        _ => Said::Failed(Failure { step: Step::Order, errno: 0 }),
    })?;
    env::set_current_dir(order.slot()).map_err(start::failed(Step::Folder))?;
    // Not before: one that waits for its order has nothing to lose, and may be told to go.
    let signals = detach().map_err(start::failed(Step::Detach))?;
    match order {
        Order::Launch { spec, cgroup, .. } => start::launch(&spec, cgroup.map(Cgroup::at), signals, agent),
        Order::Adopt { .. } => adopt::adopt(signals),
    }
}

/// Out of the agent's session and deaf to signals, so that none to it or to all of us ends us, and the next parent of all that
/// the program starts.
fn detach() -> io::Result<Signals> {
    let signals = Signals::hold_back()?;
    setsid()?;
    set_child_subreaper(Some(getpid()))?;
    // The line to the agent has a descriptor of its own now.
    let null = std::fs::File::open("/dev/null")?;
    dup2_stdin(&null)?;
    Ok(signals)
}
