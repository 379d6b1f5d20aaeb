//! `cargo xtask demo`: a control plane, one enrolled agent and the three samples on this machine, to be looked at.
//!
//! It stops what it started and nothing else: its children by their handles, keepers and replicas by the demo's own folder.

use std::fs::{self, File, Permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::command::{command, need_space, run, run_quietly};
use crate::fixtures::{self, Sample};
use crate::setup::{self, Purpose};
use crate::{bucket, processes, web, workspace};

mod layout;
mod progress;

use layout::{Layout, next_version};

/// The bucket, the releases unpacked once and linked into their slots, two versions of each, the database and the logs.
const DATA_MIB: u64 = 500;
/// How long a program of ours may take to stop before it is killed.
const GRACE: Duration = Duration::from_secs(15);

/// Builds, starts, waits until every replica runs, shows where to look, and stays until it is interrupted.
pub async fn demo(keep: Option<PathBuf>) -> Result<()> {
    for (port, what) in layout::ports() {
        free(port, &what)?;
    }
    let kept = keep.map(Folder::kept).transpose()?;
    need_space(&workspace::target(), 6000, "building everything for the demo")?;
    let data = kept.as_ref().map_or_else(std::env::temp_dir, |it| it.path().to_owned());
    need_space(&data, DATA_MIB, "what the demo unpacks")
        .map_err(|it| anyhow!("{it}, or have it elsewhere: cargo xtask demo --keep DIR"))?;
    setup::ensure(Purpose::Demo)?;
    web::bundle()?;
    println!("building the programs (the first time takes about ten minutes on two cores)");
    run(command("cargo").args(["build", "--workspace"]).current_dir(workspace::root()))?;
    println!("building the sample applications");
    let first = Sample::ALL.map(|sample| fixtures::tarball(sample, "0.1.0"));

    // Not before: whoever breaks off the building leaves nothing behind.
    let folder = kept.map_or_else(Folder::temporary, Ok)?;
    let layout = Layout::new(folder.path());
    layout.create()?;
    for tarball in first {
        let tarball = tarball?;
        if !bucket::current_path(&layout.bucket, tarball.sample.name(), layout::ENVIRONMENT).exists() {
            bucket::publish(&layout.bucket, layout::ENVIRONMENT, &tarball)?;
        }
    }
    let _pointer = Pointer::set(folder.path())?;
    let outcome = show(&layout).await;
    println!("stopping");
    processes::end(|| processes::ours_under(folder.path()), GRACE);
    outcome
}

async fn show(layout: &Layout) -> Result<()> {
    let mut interrupted = Box::pin(interrupted()?);
    let mut control_plane = start(layout.control_plane(), &layout.log("deployex"))?;
    let work = async {
        progress::answers(layout, &mut control_plane).await?;
        if !layout.is_enrolled() {
            let token = progress::join_token(layout)?;
            run_quietly(&mut layout.enrol(&token)).context("the agent could not join the control plane")?;
        }
        let mut agent = start(layout.agent(), &layout.log("deployex-agent"))?;
        progress::until_all_run(layout, &mut [&mut control_plane, &mut agent]).await?;
        println!(
            "\nDeployEx runs at http://127.0.0.1:{}\n  sign in as admin with the password deployex\n\n\
             Publish a second version and watch it roll out:\n  cargo xtask demo publish\n\n\
             Ask it from a shell:\n  {}\n\nIts logs are in {}. Ctrl-C stops it.",
            layout::CONSOLE_PORT,
            layout.example(),
            layout.logs().display()
        );
        progress::while_they_live(&mut [&mut control_plane, &mut agent]).await
    };
    tokio::select! {
        biased; // An interruption is what ends a demo that goes well.
        () = &mut interrupted => Ok(()),
        result = work => result,
    }
}

/// Publishes the next version of every sample into the running demo's bucket.
pub fn publish() -> Result<()> {
    let folder = Pointer::read()?;
    let layout = Layout::new(&folder);
    for sample in Sample::ALL {
        let current = bucket::current_path(&layout.bucket, sample.name(), layout::ENVIRONMENT);
        let text =
            fs::read_to_string(&current).with_context(|| format!("cannot read {}", current.display()))?;
        let version = next_version(&text).with_context(|| format!("no version in {}", current.display()))?;
        println!("building and publishing {sample} {version}");
        bucket::publish(&layout.bucket, layout::ENVIRONMENT, &fixtures::tarball(sample, &version)?)?;
    }
    Ok(())
}

/// Ctrl-C, being told to go, or a terminal that is closed.
fn interrupted() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut hang_up = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
    Ok(async move {
        tokio::select! {
            biased; // Either ends the demo.
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    })
}

/// A program of ours. Dropping it stops it.
pub(crate) struct Started {
    pub(crate) child: Child,
    pub(crate) log: PathBuf,
}

/// In a process group of its own, so that Ctrl-C reaches us alone and we stop things in order.
pub(crate) fn start(mut command: Command, log: &Path) -> Result<Started> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let shown = command.get_program().display().to_string();
    let child = command.stdout(file.try_clone()?).stderr(file).process_group(0).spawn();
    Ok(Started {
        child: child.with_context(|| format!("{shown} could not be started"))?,
        log: log.to_path_buf(),
    })
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        for _ in 0..GRACE.as_millis() / 50 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free(port: u16, what: &str) -> Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(_) => bail!(
            "port {port} is taken, and the demo needs it for {what}: stop what listens there (`ss -ltnp 'sport = :{port}'` \
             names it), then try again"
        ),
    }
}

/// Where the demo's data is: kept, or gone with it.
enum Folder {
    Kept(PathBuf),
    Temporary(TempDir),
}

impl Folder {
    /// Made where it is missing.
    fn kept(path: PathBuf) -> Result<Self> {
        if path.exists() && !path.is_dir() {
            bail!("{} is no folder: --keep takes one, which is made where it is missing", path.display());
        }
        fs::create_dir_all(&path).with_context(|| {
            format!("cannot make the folder {}; name one that you may write to", path.display())
        })?;
        let path = path.canonicalize()?;
        can_be_entered(&path)?;
        Ok(Self::Kept(path))
    }

    fn temporary() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("deployex-demo-").tempdir()?;
        // The applications' own user has to get in.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        Ok(Self::Temporary(folder))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }
}

/// The applications run as a user of their own where we are root.
fn can_be_entered(folder: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    for above in folder.ancestors() {
        let mode = fs::metadata(above).with_context(|| format!("cannot look at {}", above.display()))?.mode();
        if mode & 0o001 == 0 {
            bail!(
                "the sample applications run as the user deployex, who may not enter {}: keep the demo elsewhere (--keep \
                 /srv/demo), or allow it with `chmod o+x {}`",
                above.display(),
                above.display()
            );
        }
    }
    Ok(())
}

/// Tells `demo publish` where the running demo's bucket is.
struct Pointer;

impl Pointer {
    fn path() -> PathBuf {
        workspace::target().join("demo-runs-in")
    }

    fn set(folder: &Path) -> Result<Self> {
        let text = format!("{}\n{}", std::process::id(), folder.display());
        fs::write(Self::path(), text).context("cannot note where the demo runs")?;
        Ok(Self)
    }

    fn read() -> Result<PathBuf> {
        let text = fs::read_to_string(Self::path()).unwrap_or_default();
        // A demo that was killed has left its note behind.
        let runs =
            |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|it| it.trim() == "xtask");
        text.split_once('\n')
            .filter(|(pid, _)| runs(pid))
            .map(|(_, folder)| PathBuf::from(folder))
            .context("no demo runs from this folder: start one with `cargo xtask demo`")
    }
}

impl Drop for Pointer {
    fn drop(&mut self) {
        let _ = fs::remove_file(Self::path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_the_applications_cannot_enter_is_refused_before_anything_is_built() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        let opened = Folder::kept(folder.path().join("keep")).map(drop);
        if rustix::process::geteuid().is_root() {
            let error = opened.unwrap_err().to_string();
            assert!(error.contains("may not enter") && error.contains("chmod o+x"), "{error}");
        } else {
            opened.unwrap();
        }
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(Folder::kept(file).map(drop).unwrap_err().to_string().contains("is no folder"));
    }
}
