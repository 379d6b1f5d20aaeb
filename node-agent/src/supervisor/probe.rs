//! Is the replica ready? TCP on its first port where it has ports, else that it lives.
//!
//! Only asks; what an answer means is the machine's business.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::hindrance::is_ours;

/// Until the first success a start is watched closely: a virtual machine is up in half a second.
const STARTING_INTERVAL: Duration = Duration::from_millis(50);
/// After a minute without success nothing is gained by asking so often.
const STARTING_PATIENCE: u32 = 1_200;
const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(2);

/// What makes a replica ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// That its process lives.
    Process,
    Tcp {
        port: u16,
    },
}

/// Asks until cancelled, and says every change of the answer; the first failures before any success are no news.
pub(super) async fn probe(check: Check, answers: mpsc::Sender<bool>, cancel: CancellationToken) {
    let Check::Tcp { port } = check else {
        let _ = answers.send(true).await;
        return;
    };
    let mut last = None;
    let mut asked = 0_u32;
    loop {
        let passed = tokio::select! {
            // Nobody wants the answer any more.
            biased;
            () = cancel.cancelled() => return,
            passed = connects(port) => passed,
        };
        asked = asked.saturating_add(1);
        // Where nothing could be asked, the last answer stands.
        let passed = passed.or(last).unwrap_or(false);
        if last.unwrap_or(false) != passed {
            last = Some(passed);
            if answers.send(passed).await.is_err() {
                return;
            }
        }
        let closely = last.is_none() && asked < STARTING_PATIENCE;
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = sleep(if closely { STARTING_INTERVAL } else { INTERVAL }) => {}
        }
    }
}

/// On either loopback address: applications listen on one or the other. `None`: we were not able to ask.
async fn connects(port: u16) -> Option<bool> {
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let mut asked = true;
    for address in [v4, v6] {
        match timeout(TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Some(true),
            // A host without IPv6 lacks that address for good.
            Ok(Err(error)) if address.is_ipv6() && error.kind() == ErrorKind::AddrNotAvailable => {}
            Ok(Err(error)) => asked &= !is_ours(&error),
            Err(_) => {}
        }
    }
    asked.then_some(false)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    #[tokio::test]
    async fn what_we_were_not_able_to_ask_is_no_answer() {
        let listening = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listening.local_addr().unwrap().port();
        assert_eq!(connects(port).await, Some(true));
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(3), maximum: before.maximum }).unwrap();
        let without_files = connects(port).await;
        setrlimit(Resource::Nofile, before).unwrap();
        assert_eq!(without_files, None);
        drop(listening);
        assert_eq!(connects(port).await, Some(false));
    }
}
