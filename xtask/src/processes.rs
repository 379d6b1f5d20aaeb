//! The processes that belong to a folder: an agent's keepers and replicas outlive it by design, so whoever made the folder for
//! a demo or a test also ends them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// How often what was told to go is looked for again.
const LOOK: Duration = Duration::from_millis(50);

/// Those that work in the folder, were started from it, or were told of it by an argument or a variable. Never this process.
/// For a folder that nobody else knows of.
pub fn under(folder: &Path) -> Vec<Pid> {
    all(|pid| belongs(pid, folder))
}

/// The programs of DeployEx among those, and what they run; not a shell that stands in the folder, nor an editor or a `tail`
/// that was told of it.
pub fn ours_under(folder: &Path) -> Vec<Pid> {
    all(|pid| is_ours(pid, folder))
}

fn all(is_wanted: impl Fn(i32) -> bool) -> Vec<Pid> {
    let own = std::process::id();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| u32::try_from(*pid).is_ok_and(|pid| pid != own) && is_wanted(*pid))
        .filter_map(Pid::from_raw)
        .collect()
}

fn belongs(pid: i32, folder: &Path) -> bool {
    let process = Path::new("/proc").join(pid.to_string());
    let links = ["cwd", "exe"].iter().filter_map(|link| fs::read_link(process.join(link)).ok());
    if links.into_iter().any(|path| path.starts_with(folder)) {
        return true;
    }
    let texts = ["cmdline", "environ"].iter().filter_map(|file| fs::read(process.join(file)).ok());
    texts.into_iter().any(|text| text.split(|byte| *byte == 0).any(|word| mentions(word, folder)))
}

/// A program of a release lies in the folder, or has its home there.
fn is_ours(pid: i32, folder: &Path) -> bool {
    let process = Path::new("/proc").join(pid.to_string());
    let Ok(program) = fs::read_link(process.join("exe")) else { return false };
    let is_program_of_ours = program
        .file_name()
        .is_some_and(|name| ["deployex", "deployex-agent", "deployex-keeper"].iter().any(|it| name == *it));
    program.starts_with(folder)
        || is_program_of_ours && belongs(pid, folder)
        || fs::read(process.join("environ"))
            .is_ok_and(|text| text.split(|byte| *byte == 0).any(|word| is_replicas_home(word, folder)))
}

/// `HOME=FOLDER/…/service/APP/home`
fn is_replicas_home(word: &[u8], folder: &Path) -> bool {
    word.strip_prefix(b"HOME=").map(|home| Path::new(OsStr::from_bytes(home))).is_some_and(|home| {
        home.starts_with(folder)
            && home.ends_with("home")
            && home.ancestors().nth(2).is_some_and(|it| it.ends_with("service"))
    })
}

/// `FOLDER/…`, `--option=FOLDER/…` and `NAME=FOLDER/…`.
fn mentions(word: &[u8], folder: &Path) -> bool {
    let is_below = |text: &[u8]| Path::new(OsStr::from_bytes(text)).starts_with(folder);
    is_below(word) || word.iter().position(|byte| *byte == b'=').is_some_and(|at| is_below(&word[at + 1..]))
}

/// Ends everybody [`under`] the folder. Returns once none is left.
pub fn end_all_under(folder: &Path, grace: Duration) {
    end(|| under(folder), grace);
}

/// Asks those that are found to go, and after `grace` makes them. Returns once none is left.
pub fn end(find: impl Fn() -> Vec<Pid>, grace: Duration) {
    if !grace.is_zero() {
        signal(&find(), Signal::TERM);
        for _ in 0..grace.as_millis() / LOOK.as_millis() {
            if find().is_empty() {
                return;
            }
            thread::sleep(LOOK);
        }
    }
    // One that is being started while we look is found by the next look.
    loop {
        let left = find();
        if left.is_empty() {
            return;
        }
        signal(&left, Signal::KILL);
        thread::sleep(LOOK);
    }
}

fn signal(pids: &[Pid], signal: Signal) {
    for pid in pids {
        // It may have ended since it was seen.
        let _ = kill_process(*pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeper(command: &mut Command) -> Child {
        command.arg("60").spawn().unwrap()
    }

    #[test]
    fn those_in_the_folder_or_told_of_it_end_and_others_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut within = sleeper(Command::new("sleep").current_dir(folder.path()));
        let mut told = sleeper(Command::new("sleep").env("RELEASE_TMP", folder.path().join("tmp")));
        let mut other = sleeper(&mut Command::new("sleep"));
        // Reaped as soon as they end, as an init would.
        let ended = thread::spawn(move || (within.wait().unwrap(), told.wait().unwrap()));
        end_all_under(folder.path(), Duration::from_secs(10));
        ended.join().unwrap();
        assert_eq!(other.try_wait().unwrap(), None);
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn who_only_looks_at_a_demo_outlives_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log");
        fs::write(&file, "").unwrap();
        let home = folder.path().join("agent/service/demo/home");
        let mut replica = sleeper(Command::new("sleep").env("HOME", home));
        let mut shell = sleeper(Command::new("sleep").current_dir(folder.path()).env("PWD", folder.path()));
        let mut reader = Command::new("tail").arg("-f").arg(&file).spawn().unwrap();
        let ended = thread::spawn(move || replica.wait().unwrap());
        end(|| ours_under(folder.path()), Duration::from_secs(10));
        ended.join().unwrap();
        for other in [&mut shell, &mut reader] {
            assert_eq!(other.try_wait().unwrap(), None);
            other.kill().unwrap();
            other.wait().unwrap();
        }
    }

    #[test]
    fn a_folder_is_not_confused_with_one_whose_name_begins_alike() {
        let folder = Path::new("/tmp/demo");
        assert!(mentions(b"/tmp/demo/agent", folder) && mentions(b"--var-path=/tmp/demo", folder));
        assert!(!mentions(b"/tmp/demo2/agent", folder) && !mentions(b"HOME=/tmp", folder));
    }
}
