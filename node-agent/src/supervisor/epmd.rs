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

/// A copy in the agent's folder, of the release's own or else of the host's: so that it is tied to neither, and can be told
/// from the name servers of others by where it lies.
fn program(release: &Path, keep: &Path) -> Result<PathBuf, EpmdError> {
    let copy = keep.join("epmd");
    if copy.is_file() {
        return Ok(copy);
    }
    let on_host = ["/usr/bin/epmd", "/usr/local/bin/epmd"].into_iter().map(PathBuf::from);
    let source = in_erts(release)
        .or_else(|| on_host.into_iter().find(|it| it.is_file()))
        .or_else(|| in_erts(Path::new("/usr/lib/erlang")))
        .or_else(|| in_erts(Path::new("/usr/local/lib/erlang")))
        .ok_or_else(|| EpmdError::None { release: release.to_owned() })?;
    let copied = fs::create_dir_all(keep).and_then(|()| {
        let temporary = keep.join("epmd.new");
        fs::copy(&source, &temporary)?;
        fs::rename(&temporary, &copy)
    });
    copied.map_err(|source| EpmdError::Copy { to: copy.clone(), source })?;
    Ok(copy)
}

fn in_erts(root: &Path) -> Option<PathBuf> {
    let folders = fs::read_dir(root).ok()?.flatten();
    folders
        .filter(|it| it.file_name().to_string_lossy().starts_with("erts-"))
        .map(|it| it.path().join("bin/epmd"))
        .find(|it| it.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_started_lies_in_the_agents_folder() {
        let folder = tempfile::tempdir().unwrap();
        let keep = folder.path().join("keep");
        // No release of its own has one, as with Gleam: the host's is copied.
        assert_eq!(program(&folder.path().join("shipment"), &keep).unwrap(), keep.join("epmd"));
        assert!(keep.join("epmd").is_file());
    }

    #[test]
    fn the_releases_own_comes_before_the_hosts() {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("release/erts-13.1.5/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join("epmd"), "of the release").unwrap();
        let keep = folder.path().join("keep");
        let copy = program(&folder.path().join("release"), &keep).unwrap();
        assert_eq!(fs::read_to_string(copy).unwrap(), "of the release");
    }
}
