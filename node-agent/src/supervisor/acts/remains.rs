//! What a process leaves behind that says why it ended: its last words, and the dump that an Erlang VM writes when it
//! crashes. Read, and kept, only once the successor may start: nothing waits for it.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, mkdirat, open, openat, renameat, unlinkat};
use rustix::io::Errno;
use tracing::warn;

use super::super::Shared;
use super::super::ledger::Remains;
use super::super::slot::Answer;
use super::last_words::last_words;
use super::{Answers, SlotContext};
use crate::clock::Time;

/// Where a VM is told to write its dump, in the slot's work folder.
const DUMP: &str = "erl_crash.dump";
/// Beside it: one for each of the last crashes, by the time of the crash in milliseconds since 1970.
const DUMPS: &str = "crash-dumps";
const ENDING: &str = ".dump";
/// Each may have 256 MiB.
const KEPT: usize = 3;
/// The slogan stands on the third line.
const HEAD: u64 = 16 << 10;
const SLOGAN_CHARS: usize = 500;
/// A dump that was written to longer ago is not of the process that has just ended.
const FRESH: Duration = Duration::from_secs(30);

/// `began_unix_ms`, `ended_unix_ms`: when the process began and its end was seen, by the same clock by which a dump has its
/// time. Ours may have been set since, and this agent begun long after.
pub(in crate::supervisor) fn read_remains(
    shared: &Arc<Shared>,
    context: &Arc<SlotContext>,
    exit_at: Option<Time>,
    began_unix_ms: u64,
    ended_unix_ms: u64,
    answers: Answers,
) {
    let (shared, context) = (shared.clone(), context.clone());
    shared.tracker.clone().spawn(async move {
        let (logs, work) = (shared.paths.logs(&context.id), context.folder.path().join("work"));
        let read = tokio::task::spawn_blocking(move || {
            let log_tail = last_words(&logs, began_unix_ms);
            let (crash_dump, slogan) = match keep_dump(&work, ended_unix_ms) {
                Ok(kept) => kept.unwrap_or_default(),
                Err(error) => {
                    let path = work.join(DUMP);
                    warn!(path = %path.display(), error = &error as &dyn std::error::Error, "a crash dump cannot be kept");
                    Default::default()
                }
            };
            let crash_dump = crash_dump.display().to_string();
            Remains { exit_at, log_tail, slogan, crash_dump }
        });
        if let Ok(remains) = read.await {
            let _ = answers.send(Answer::Remains(remains)).await;
        }
    });
}

/// Moves the dump out of the way of the next one and forgets the oldest. `None`: none was written by who has just ended.
///
/// The folder is the application's, who may put anything anywhere in it, while we may be root: so everything goes by open
/// folders, and no link is followed.
/// `now`: when the process ended, milliseconds since 1970.
fn keep_dump(work: &Path, now: u64) -> Result<Option<(PathBuf, String)>, Errno> {
    let folder = |at: &OwnedFd, name: &str| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(at, name, flags, Mode::empty())
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let work_fd = match open(work, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        other => other?,
    };
    let dump = match openat(&work_fd, DUMP, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        other => File::from(other?),
    };
    let about = dump.metadata().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    if !about.is_file() {
        return Ok(None);
    }
    // What an earlier end left is not this one's, and is put away without a word.
    let written = about.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let is_fresh = written.is_some_and(|at| (at + FRESH).as_millis() >= u128::from(now));
    let slogan = slogan(dump).filter(|_| is_fresh);
    match mkdirat(&work_fd, DUMPS, Mode::from_raw_mode(0o750)) {
        Err(Errno::EXIST) => {}
        other => other?,
    }
    let dumps = folder(&work_fd, DUMPS)?;
    let mut all = Vec::new();
    for entry in Dir::read_from(&dumps)? {
        let entry = entry?.file_name().to_string_lossy().into_owned();
        all.extend(
            entry.strip_suffix(ENDING).and_then(|it| it.parse::<u64>().ok()).map(|at| (at, entry.clone())),
        );
    }
    all.sort_unstable();
    // The newest also where the clock was ahead when its predecessors were put away.
    let at = all.last().map_or(now, |(newest, _)| now.max(newest.saturating_add(1)));
    let name = format!("{at}{ENDING}");
    renameat(&work_fd, DUMP, &dumps, &name)?;
    for (_, oldest) in all.iter().rev().skip(KEPT - 1) {
        if let Err(error) = unlinkat(&dumps, oldest, AtFlags::empty()) {
            warn!(dump = oldest, %error, "an old crash dump cannot be removed");
        }
    }
    Ok(slogan.map(|slogan| (work.join(DUMPS).join(name), slogan)))
}

/// As in `Slogan: init terminating in do_boot (…)`.
fn slogan(dump: File) -> Option<String> {
    let mut head = Vec::new();
    dump.take(HEAD).read_to_end(&mut head).ok()?;
    let head = String::from_utf8_lossy(&head);
    let slogan = head.lines().find_map(|line| line.strip_prefix("Slogan: ")).unwrap_or_default();
    let plain = slogan.trim().chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    Some(plain.take(SLOGAN_CHARS).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn dump(work: &Path, slogan: &str) {
        let text = format!("=erl_crash_dump:0.5\nMon Nov 23 2026\nSlogan: {slogan}\nSystem version: x\n");
        fs::write(work.join(DUMP), text).unwrap();
    }

    fn kept(work: &Path) -> Vec<String> {
        let entries = fs::read_dir(work.join(DUMPS)).unwrap().flatten();
        let mut names: Vec<_> = entries.map(|it| it.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_last_few_dumps_are_kept_with_their_slogans() {
        let work = tempfile::tempdir().unwrap();
        assert_eq!(keep_dump(work.path(), 1), Ok(None));
        assert_eq!(keep_dump(&work.path().join("absent"), 1), Ok(None));
        for at in 8..=12 {
            dump(work.path(), &format!("eheap_alloc: no memory {at}"));
            let (path, slogan) = keep_dump(work.path(), at).unwrap().unwrap();
            assert_eq!(path, work.path().join(format!("crash-dumps/{at}.dump")));
            assert_eq!(slogan, format!("eheap_alloc: no memory {at}"));
        }
        // The newest by number, not by letter.
        assert_eq!(kept(work.path()), ["10.dump", "11.dump", "12.dump"]);
        assert!(!work.path().join(DUMP).exists());
        // The clock was ahead, and was set right: the newest is the newest all the same.
        dump(work.path(), "after the clock was set");
        let (path, _) = keep_dump(work.path(), 5).unwrap().unwrap();
        assert_eq!(path, work.path().join("crash-dumps/13.dump"));
        assert_eq!(kept(work.path()), ["11.dump", "12.dump", "13.dump"]);
    }

    #[test]
    fn a_dump_of_long_ago_is_put_away_and_not_taken_for_the_last_crash() {
        let work = tempfile::tempdir().unwrap();
        dump(work.path(), "of a pre-command, weeks ago");
        let now = crate::clock::unix_ms() + 60_000;
        assert_eq!(keep_dump(work.path(), now), Ok(None));
        assert_eq!(kept(work.path()), [format!("{now}.dump")]);
        // One of an end that nobody looked at for an hour is the last crash's all the same.
        dump(work.path(), "an hour ago");
        let then = crate::clock::unix_ms() - 3_600_000;
        let dumped = File::options().write(true).open(work.path().join(DUMP)).unwrap();
        dumped.set_modified(UNIX_EPOCH + Duration::from_millis(then)).unwrap();
        assert_eq!(keep_dump(work.path(), then + 200).unwrap().unwrap().1, "an hour ago");
        // A folder of that name is none, and breaks nothing.
        fs::create_dir(work.path().join(DUMP)).unwrap();
        assert_eq!(keep_dump(work.path(), now), Ok(None));
    }

    #[test]
    fn what_is_no_dump_of_its_own_is_neither_read_nor_moved_elsewhere() {
        let (work, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secret = elsewhere.path().join("secret");
        fs::write(&secret, "Slogan: the secret\n").unwrap();
        std::os::unix::fs::symlink(&secret, work.path().join(DUMP)).unwrap();
        assert!(keep_dump(work.path(), 1).is_err() && secret.exists());
        fs::remove_file(work.path().join(DUMP)).unwrap();
        dump(work.path(), "its own");
        std::os::unix::fs::symlink(elsewhere.path(), work.path().join(DUMPS)).unwrap();
        assert!(keep_dump(work.path(), 1).is_err());
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
    }
}
