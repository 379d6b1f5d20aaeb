//! The last lines that a process printed, to be shown with what became of it. Of its own only: its files go on from those
//! before it, and what was written weeks ago explains no crash of today.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::super::Shared;
use super::SlotContext;
use crate::clock;
use crate::keeper::procfs::Stat;
use crate::replica::report::{TAIL_MAX, tail};

/// Times of files are those of the last tick of the kernel's clock, and a process's start is told in hundredths.
const SLACK_MS: u64 = 1_000;

/// The last lines of a replica that runs as `pid`, as they are now.
pub(in crate::supervisor) async fn last_lines(shared: &Shared, context: &SlotContext, pid: u32) -> String {
    let logs = shared.paths.logs(&context.id);
    let began = Stat::of(pid).map_or(0, |it| clock::unix_ms_of_ticks(it.start_ticks));
    tokio::task::spawn_blocking(move || last_words(&logs, began)).await.unwrap_or_default()
}

/// At most [`TAIL_MAX`] bytes of the streams that were written to since then, the one that spoke last at the end. None of
/// them takes more than half where the others have as much to say.
pub(super) fn last_words(logs: &[PathBuf], began_unix_ms: u64) -> String {
    last_words_from(logs, &[], began_unix_ms)
}

/// Where what is to be read begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begin {
    /// Its inode: another one is read whole.
    pub(super) file: u64,
    /// In bytes.
    pub(super) at: u64,
}

/// The same of what was written behind these places, one for each file; what has none is read from its beginning.
pub(super) fn last_words_from(logs: &[PathBuf], from: &[Begin], began_unix_ms: u64) -> String {
    let places = from.iter().copied().chain(std::iter::repeat(Begin::default()));
    let read = |(path, from): (&PathBuf, Begin)| read(path, from).ok().filter(|(_, text)| !text.is_empty());
    let mut streams: Vec<_> = logs.iter().zip(places).filter_map(read).collect();
    streams.retain(|(written, _)| written.saturating_add(SLACK_MS) >= began_unix_ms);
    streams.sort_by_key(|(written, _)| *written);
    let share = TAIL_MAX / streams.len().max(1);
    let unused: usize = streams.iter().map(|(_, text)| share.saturating_sub(text.len())).sum();
    streams.iter().map(|(_, text)| tail(text, share + unused)).collect()
}

/// When a file was written to, milliseconds since 1970, and at most [`TAIL_MAX`] bytes from its end.
fn read(path: &Path, from: Begin) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let about = file.metadata()?;
    let written = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let from = if about.ino() == from.file { from.at } else { 0 };
    file.seek(SeekFrom::Start(about.len().saturating_sub(TAIL_MAX as u64).max(from)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_MAX as u64).read_to_end(&mut bytes)?;
    let written = u64::try_from(written.as_millis()).unwrap_or(u64::MAX);
    Ok((written, String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    struct Logs(tempfile::TempDir);

    impl Logs {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn paths(&self) -> [PathBuf; 2] {
            ["stdout.log", "stderr.log"].map(|it| self.0.path().join(it))
        }

        fn write(&self, stream: usize, text: &str, at: u64) {
            let path = &self.paths()[stream];
            std::fs::write(path, text).unwrap();
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_millis(at)).unwrap();
        }
    }

    #[test]
    fn what_was_said_before_a_process_began_is_not_its_word() {
        let logs = Logs::new();
        assert_eq!(last_words(&logs.paths(), NOW), "");
        logs.write(1, &"a warning of weeks ago\n".repeat(400), NOW - 1_000_000);
        logs.write(0, "badmatch\n", NOW + 50);
        assert_eq!(last_words(&logs.paths(), NOW), "badmatch\n");
        assert_eq!(last_words(&logs.paths(), NOW + 60_000), "", "it has said nothing");
    }

    #[test]
    fn what_another_printed_into_the_same_file_is_not_its_word() {
        let logs = Logs::new();
        logs.write(0, "of the one before\n", NOW);
        let about = std::fs::metadata(&logs.paths()[0]).unwrap();
        let from = [Begin { file: about.ino(), at: about.len() }];
        assert_eq!(last_words_from(&logs.paths(), &from, NOW), "");
        logs.write(1, "an error\n", NOW + 1);
        logs.write(0, "of the one before\nof this one\n", NOW);
        assert_eq!(last_words_from(&logs.paths(), &from, NOW), "of this one\nan error\n");
        let other = [Begin { file: about.ino() + 1, ..from[0] }];
        assert!(last_words_from(&logs.paths(), &other, NOW).starts_with("of the one before"), "another file");
    }

    #[test]
    fn no_stream_hides_the_other_and_who_spoke_last_is_at_the_end() {
        let logs = Logs::new();
        logs.write(0, &format!("{}the reason\n", "on standard output\n".repeat(400)), NOW + 1);
        logs.write(1, &"on standard error\n".repeat(400), NOW + 2);
        let words = last_words(&logs.paths(), NOW);
        assert!(words.len() <= TAIL_MAX && words.len() > TAIL_MAX * 9 / 10, "{}", words.len());
        assert!(words.contains("the reason\non standard error") && words.ends_with("on standard error\n"));
        logs.write(0, "the reason\n", NOW + 3);
        let words = last_words(&logs.paths(), NOW);
        assert!(words.len() <= TAIL_MAX && words.len() > TAIL_MAX * 9 / 10, "{}", words.len());
        assert!(words.ends_with("on standard error\nthe reason\n"));
    }
}
