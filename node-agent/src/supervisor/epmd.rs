//! Erlang's port mapper: one per `ERL_EPMD_PORT`, there before the first replica, because the first node to start would
//! otherwise start one out of its own release folder and so tie it to that slot.
//!
//! One that is there is used, whoever's it is, and never ended.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use std::{fs, io};

use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// It daemonises within milliseconds.
const START_PATIENCE: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

#[derive(Debug, thiserror::Error)]
pub enum EpmdError {
    #[error("no epmd in the release nor on the host: {} has none", release.display())]
    None { release: PathBuf },
    #[error("epmd cannot be copied to {}", to.display())]
    Copy { to: PathBuf, source: io::Error },
    #[error("{} cannot be started", program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("{} was started but nothing answers on port {port}", program.display())]
    Silent { program: PathBuf, port: u16 },
}

/// Makes sure that one answers on `port`. `release` is where a copy can be had; `keep` the agent's folder for it, outside of
/// any slot.
pub async fn ensure(port: u16, release: &Path, keep: &Path) -> Result<(), EpmdError> {
    if answers(port).await {
        return Ok(());
    }
    let program = program(release, keep)?;
    let started = Command::new(&program)
        .arg("-daemon")
        .args(["-port", &port.to_string()])
        .args(["-address", "127.0.0.1"])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .status()
        .await;
    started.map_err(|source| EpmdError::Start { program: program.clone(), source })?;
    let up = async {
        while !answers(port).await {
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(START_PATIENCE, up).await.map_err(|_| EpmdError::Silent { program, port })
}

async fn answers(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    matches!(timeout(Duration::from_secs(1), TcpStream::connect(address)).await, Ok(Ok(_)))
}

/// A copy of the release's own, else the host's.
fn program(release: &Path, keep: &Path) -> Result<PathBuf, EpmdError> {
    let copy = keep.join("epmd");
    if copy.is_file() {
        return Ok(copy);
    }
    if let Some(of_release) = in_erts(release) {
        let copied = fs::create_dir_all(keep).and_then(|()| {
            let temporary = keep.join("epmd.new");
            fs::copy(&of_release, &temporary)?;
            fs::rename(&temporary, &copy)
        });
        copied.map_err(|source| EpmdError::Copy { to: copy.clone(), source })?;
        return Ok(copy);
    }
    let host =
        ["/usr/bin/epmd", "/usr/local/bin/epmd"].into_iter().map(PathBuf::from).find(|it| it.is_file());
    let host = host
        .or_else(|| in_erts(Path::new("/usr/lib/erlang")))
        .or_else(|| in_erts(Path::new("/usr/local/lib/erlang")));
    host.ok_or_else(|| EpmdError::None { release: release.to_owned() })
}

fn in_erts(root: &Path) -> Option<PathBuf> {
    let folders = fs::read_dir(root).ok()?.flatten();
    folders
        .filter(|it| it.file_name().to_string_lossy().starts_with("erts-"))
        .map(|it| it.path().join("bin/epmd"))
        .find(|it| it.is_file())
}
