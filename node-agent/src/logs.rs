//! Reads a slot's log files for somebody who looks: the last lines, then what is added, across rotation and truncation.
//!
//! The keeper writes them; nothing here keeps a byte that was not sent. Files are looked at a few times a second, only while
//! somebody reads.

use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use proto::ids::{AppName, BadName, Slot};
use proto::pb;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::mpsc;

/// Fast enough to feel live, seldom enough to cost nothing.
const LOOK: Duration = Duration::from_millis(200);

/// Below the contract's bound for a chunk.
const CHUNK: usize = 32 << 10;

/// How far back the last lines are looked for: a line may be long, but memory is short.
const BACK: u64 = 1 << 20;

/// Where applications' logs lie: `{folder}/{app}/{app}-{slot}-stdout.log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFolder(pub PathBuf);

impl LogFolder {
    pub fn file(&self, app: &AppName, slot: Slot, stream: &str) -> PathBuf {
        self.0.join(app.as_str()).join(format!("{app}-{slot}-{stream}.log"))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error(transparent)]
    Name(#[from] BadName),
}

type Chunks = mpsc::Sender<pb::StreamChunk>;

/// What somebody wants to read.
#[derive(Debug)]
pub struct Follow {
    files: Vec<(PathBuf, pb::LogStream)>,
    last_lines: usize,
    /// Goes on when the end is reached.
    on: bool,
}

impl Follow {
    pub fn new(folder: &LogFolder, wish: &pb::FollowLog) -> Result<Self, FollowError> {
        let (app, slot) = (wish.app.parse()?, Slot::new(wish.slot)?);
        let stdout = (folder.file(&app, slot, "stdout"), pb::LogStream::Stdout);
        let stderr = (folder.file(&app, slot, "stderr"), pb::LogStream::Stderr);
        let files = match wish.stream() {
            pb::LogStream::Stdout => vec![stdout],
            pb::LogStream::Stderr => vec![stderr],
            pb::LogStream::Both => vec![stdout, stderr],
        };
        let last_lines = usize::try_from(wish.last_lines).unwrap_or(usize::MAX);
        Ok(Self { files, last_lines, on: wish.follow })
    }

    /// Until all was sent, or nobody takes it any more.
    pub async fn run(self, chunks: Chunks) {
        let (lines, follow) = (self.last_lines, self.on);
        let one = |file: (PathBuf, pb::LogStream)| {
            let chunks = chunks.clone();
            async move { read_one(&file.0, file.1, lines, follow, &chunks).await }
        };
        let ends = futures_util::future::join_all(self.files.into_iter().map(one));
        tokio::select! {
            biased; // when nobody reads any more, nothing is read any more
            () = chunks.closed() => {}
            ends = ends => {
                if let Some(error) = ends.into_iter().find_map(Result::err) {
                    let last = pb::StreamChunk { error: error.to_string(), ..Default::default() };
                    // A reader that has gone needs no reason.
                    drop(chunks.send(last).await);
                }
            }
        }
    }
}

async fn read_one(
    path: &PathBuf,
    stream: pb::LogStream,
    lines: usize,
    follow: bool,
    chunks: &Chunks,
) -> io::Result<()> {
    let mut open = match File::open(path).await {
        Ok(mut file) => {
            let at = start(&mut file, lines).await?;
            Some((file, at))
        }
        // A log that is not there yet is an empty one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    loop {
        if let Some((file, at)) = open.as_mut() {
            while let Some(data) = read_chunk(file, at).await? {
                let chunk = pb::StreamChunk { data, log_stream: stream.into(), ..Default::default() };
                if chunks.send(chunk).await.is_err() {
                    return Ok(());
                }
            }
        }
        if !follow {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
        open = turned(path, open).await?;
    }
}

/// The file to go on with: the same; the same from its start, where it was cut; or the one that took its place.
async fn turned(path: &PathBuf, open: Option<(File, u64)>) -> io::Result<Option<(File, u64)>> {
    let there = match tokio::fs::metadata(path).await {
        Ok(there) => there,
        // Between two steps of a rotation, or before the first start.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(open),
        Err(error) => return Err(error),
    };
    let Some((mut file, at)) = open else { return Ok(Some((File::open(path).await?, 0))) };
    let held = file.metadata().await?;
    if held.ino() == there.ino() && held.dev() == there.dev() {
        if held.len() < at {
            file.seek(SeekFrom::Start(0)).await?;
            return Ok(Some((file, 0)));
        }
        return Ok(Some((file, at)));
    }
    if held.len() > at {
        // What was written before the rotation comes first; the next look takes the new file.
        return Ok(Some((file, at)));
    }
    Ok(Some((File::open(path).await?, 0)))
}

async fn read_chunk(file: &mut File, at: &mut u64) -> io::Result<Option<Bytes>> {
    let mut data = vec![0; CHUNK];
    let length = file.read(&mut data).await?;
    data.truncate(length);
    *at += u64::try_from(length).unwrap_or(0);
    Ok((length > 0).then(|| Bytes::from(data)))
}

/// Puts the file at the beginning of its last lines, and says where that is.
async fn start(file: &mut File, lines: usize) -> io::Result<u64> {
    let end = file.metadata().await?.len();
    let from = end.saturating_sub(BACK);
    file.seek(SeekFrom::Start(from)).await?;
    let mut tail = Vec::new();
    file.take(end - from).read_to_end(&mut tail).await?;
    let at = from + u64::try_from(last_lines(&tail, lines)).unwrap_or(0);
    file.seek(SeekFrom::Start(at)).await
}

/// Where the last `lines` lines begin. An unfinished line at the end is a line.
fn last_lines(tail: &[u8], lines: usize) -> usize {
    if lines == 0 {
        return tail.len();
    }
    let finished = tail.strip_suffix(b"\n").unwrap_or(tail);
    finished
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n')
        .nth(lines - 1)
        .map_or(0, |(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    struct Reader {
        folder: tempfile::TempDir,
        chunks: mpsc::Receiver<pb::StreamChunk>,
        task: tokio::task::JoinSet<()>,
    }

    fn wish(last_lines: u32, follow: bool) -> pb::FollowLog {
        let stream = pb::LogStream::Stdout.into();
        pb::FollowLog { app: "shop".to_owned(), slot: 1, stream, last_lines, follow }
    }

    impl Reader {
        fn new(written: Option<&str>, wish: &pb::FollowLog) -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("shop")).unwrap();
            let logs = LogFolder(folder.path().to_owned());
            let (sender, chunks) = mpsc::channel(4);
            let mut task = tokio::task::JoinSet::new();
            let reader = Follow::new(&logs, wish).unwrap();
            let this = Self { folder, chunks, task: tokio::task::JoinSet::new() };
            if let Some(text) = written {
                this.append(text);
            }
            task.spawn(reader.run(sender));
            Self { task, ..this }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("shop/shop-1-stdout.log")
        }

        fn append(&self, text: &str) {
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(self.path()).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        async fn expect(&mut self, text: &str) {
            let mut read = String::new();
            while read.len() < text.len() {
                let chunk = tokio::time::timeout(Duration::from_secs(10), self.chunks.recv()).await;
                let chunk = chunk.expect("a chunk in time").expect("a chunk");
                assert_eq!(chunk.error, "");
                read.push_str(std::str::from_utf8(&chunk.data).unwrap());
            }
            assert_eq!(read, text);
        }
    }

    #[test]
    fn the_last_lines_begin_after_a_line_end() {
        for (text, lines, rest) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\nb\n", 0, ""),
            ("\n\n\n", 1, "\n"),
            ("", 3, ""),
        ] {
            assert_eq!(&text[last_lines(text.as_bytes(), lines)..], rest, "{text:?} {lines}");
        }
    }

    #[tokio::test]
    async fn the_last_lines_are_sent_and_then_the_stream_ends() {
        let mut reader = Reader::new(Some("a\nb\nc\n"), &wish(2, false));
        reader.expect("b\nc\n").await;
        assert!(reader.chunks.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_log_is_followed_across_rotation_and_truncation_without_losing_a_line() {
        let mut reader = Reader::new(Some("older\nold\n"), &wish(1, true));
        reader.expect("old\n").await;
        reader.append("one\n");
        reader.expect("one\n").await;
        reader.append("two\n");
        std::fs::rename(reader.path(), reader.path().with_extension("log.1")).unwrap();
        reader.append("three\n");
        reader.expect("two\nthree\n").await;
        std::fs::write(reader.path(), "").unwrap();
        reader.append("4\n");
        reader.expect("4\n").await;
    }

    #[tokio::test]
    async fn a_log_that_is_not_there_yet_is_waited_for() {
        let mut reader = Reader::new(None, &wish(10, true));
        reader.append("first\n");
        reader.expect("first\n").await;
    }

    #[tokio::test]
    async fn a_reader_that_goes_ends_the_reading() {
        let mut reader = Reader::new(Some("a\n"), &wish(1, true));
        reader.expect("a\n").await;
        reader.chunks.close();
        let ended = tokio::time::timeout(Duration::from_secs(10), reader.task.join_next()).await;
        ended.expect("the reading ends").unwrap().unwrap();
    }

    #[test]
    fn a_name_cannot_lead_out_of_the_folder() {
        let wish = pb::FollowLog { app: "../etc".to_owned(), ..wish(1, false) };
        assert!(Follow::new(&LogFolder("/var/log".into()), &wish).is_err());
    }
}
