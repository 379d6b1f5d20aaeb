//! The commands that check NGINX's configuration and make it read it anew: no shell, bounded in time and output.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use proto::words::{Unfinished, split};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::time::timeout;

pub(super) const USUAL_RELOAD: &str = "nginx -s reload";
/// A configuration of thousands of hosts is read within seconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// What was printed last is read once the command has ended; whoever it left behind may hold the pipe for ever.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Of what a command printed, for a fault: its end.
const OUTPUT_MAX: usize = 1_024;
/// Where NGINX lies where an agent's PATH does not say.
const SYSTEM_FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error("`reload` holds no command")]
    Empty,
    #[error("`reload` cannot be split into words")]
    Words(#[from] Unfinished),
    #[error("`{line}` cannot be run")]
    Start {
        line: String,
        #[source]
        source: io::Error,
    },
    #[error("`{line}` did not end within {} s{output}", PATIENCE.as_secs())]
    Hangs { line: String, output: String },
    #[error("`{line}` ended with {status}{output}")]
    Failed { line: String, status: ExitStatus, output: String },
}

/// A reload, and the check that goes before it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Commands {
    pub(super) reload: Vec<String>,
    /// `None`: there is no check that needs no more than the reload does; NGINX's own refusal is all there is.
    pub(super) check: Option<Vec<String>>,
}

impl Commands {
    /// Where the reload says `-s reload` to an NGINX, that NGINX is asked with `-t` instead, with all its other words. Behind
    /// any other command (`systemctl reload nginx`) is the host's NGINX: root may ask it with `nginx -t`, while for anybody
    /// else that may need rights which the reload does not.
    pub(super) fn of(line: &str, is_root: bool) -> Result<Self, CommandError> {
        let line = if line.trim().is_empty() { USUAL_RELOAD } else { line };
        let reload = split(line)?;
        if reload.is_empty() {
            return Err(CommandError::Empty);
        }
        let signal = reload.windows(2).position(|it| it == ["-s", "reload"]);
        let check = match signal {
            Some(at) => {
                let mut check = reload.clone();
                check.splice(at..at + 2, ["-t".to_owned()]);
                Some(check)
            }
            None => {
                (is_root && program("nginx").is_some()).then(|| vec!["nginx".to_owned(), "-t".to_owned()])
            }
        };
        Ok(Self { reload, check })
    }
}

/// Runs it to its end.
pub(super) async fn run(words: &[String]) -> Result<(), CommandError> {
    let line = words.join(" ");
    let start = |source| CommandError::Start { line: line.clone(), source };
    let (mut child, mut output) = start_it(words).map_err(start)?;
    let mut printed = Vec::new();
    let ended = timeout(PATIENCE, async {
        tokio::select! {
            // What it prints is read while it runs, or it waits for that.
            biased;
            never = read(&mut output, &mut printed) => never,
            status = child.wait() => status,
        }
    })
    .await;
    let Ok(status) = ended else {
        end(&mut child).await;
        return Err(CommandError::Hangs { output: said(&printed), line });
    };
    let status = status.map_err(start)?;
    if status.success() {
        return Ok(());
    }
    let _ = timeout(LAST_WORDS, drain(&mut output, &mut printed)).await;
    Err(CommandError::Failed { output: said(&printed), status, line })
}

fn start_it(words: &[String]) -> io::Result<(Child, Receiver)> {
    let (reader, writer) = io::pipe()?;
    let name = words.first().map(String::as_str).unwrap_or_default();
    let mut command = Command::new(program(name).unwrap_or_else(|| name.into()));
    command
        .args(words.iter().skip(1))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .kill_on_drop(true);
    Ok((command.spawn()?, Receiver::from_owned_fd(OwnedFd::from(reader))?))
}

/// Where a program without a folder lies.
fn program(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(SYSTEM_FOLDERS.iter().map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|it: &PathBuf| Path::is_file(it))
}

/// Reads on for ever.
async fn read(output: &mut Receiver, printed: &mut Vec<u8>) -> io::Result<ExitStatus> {
    drain(output, printed).await;
    std::future::pending().await
}

/// Until nobody prints any more.
async fn drain(output: &mut Receiver, printed: &mut Vec<u8>) {
    let mut chunk = [0; OUTPUT_MAX];
    while let Ok(count @ 1..) = output.read(&mut chunk).await {
        printed.extend_from_slice(&chunk[..count]);
        let over = printed.len().saturating_sub(OUTPUT_MAX);
        printed.drain(..over);
    }
}

async fn end(child: &mut Child) {
    let group = child.id().and_then(|it| i32::try_from(it).ok()).and_then(Pid::from_raw);
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait().await;
}

/// On one line.
fn said(printed: &[u8]) -> String {
    let text = String::from_utf8_lossy(printed);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|it| !it.is_empty()).collect();
    if lines.is_empty() { String::new() } else { format!(": {}", lines.join(" | ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_nginx_that_is_reloaded_is_the_one_that_is_asked() {
        for is_root in [true, false] {
            let check = |line: &str| Commands::of(line, is_root).unwrap().check;
            assert_eq!(check(""), Some(words("nginx -t")));
            assert_eq!(
                check("nginx -p /x -c '/x/a b' -s reload").unwrap().join("|"),
                "nginx|-p|/x|-c|/x/a b|-t"
            );
            assert_eq!(check("docker exec web nginx -s reload"), Some(words("docker exec web nginx -t")));
        }
        assert_eq!(Commands::of("systemctl reload nginx", false).unwrap().check, None);
        assert!(matches!(Commands::of("nginx 'x", true), Err(CommandError::Words(_))));
        assert!(matches!(Commands::of("''  ", true).map(|it| it.reload), Ok(it) if it == [""]));
    }

    #[tokio::test]
    async fn what_it_printed_is_told_with_its_failure_and_no_more_than_fits() {
        run(&words("true")).await.unwrap();
        let script = "yes line | head -c 100000; echo out; echo err >&2; exit 3".to_owned();
        let failed = run(&["sh".to_owned(), "-c".to_owned(), script]).await.unwrap_err().to_string();
        assert!(failed.contains("exit status: 3: ") && failed.ends_with("line | out | err"), "{failed}");
        assert!(failed.len() < 3 * OUTPUT_MAX, "{}", failed.len());
        let absent = run(&words("no-such-program-anywhere -t")).await.unwrap_err();
        assert!(matches!(absent, CommandError::Start { .. }), "{absent}");
    }

    #[tokio::test]
    async fn whoever_it_leaves_behind_is_not_waited_for() {
        let script = "sleep 600 & echo left $!; exit 1".to_owned();
        let failed = run(&["sh".to_owned(), "-c".to_owned(), script]).await.unwrap_err().to_string();
        let left: i32 = failed.rsplit(' ').next().unwrap().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(left).unwrap(), Signal::KILL).unwrap();
    }
}
