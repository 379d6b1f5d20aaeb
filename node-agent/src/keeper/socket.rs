//! Who is connected to a keeper, and the lines that come and go. Never waits for anybody: a client that does not read, or
//! sends what is no line, is dropped, and of too many the longest connected goes.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use super::protocol::{MAX_LINE, Said};

/// One agent, a successor of it, a person who looks: more is a mistake.
const MOST_CLIENTS: usize = 8;

pub(super) struct Clients {
    listener: UnixListener,
    clients: Vec<Client>,
}

struct Client {
    stream: UnixStream,
    /// What came since the last whole line.
    partial: Vec<u8>,
}

impl Clients {
    /// Listens at `path`, in the place of whatever a dead keeper left there.
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, clients: Vec::new() })
    }

    /// The listener first, then the clients in their order.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.listener.as_fd()).chain(self.clients.iter().map(|it| it.stream.as_fd()))
    }

    pub(super) fn add(&mut self, stream: UnixStream, greeting: &[Said]) {
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        if self.clients.len() >= MOST_CLIENTS {
            self.clients.remove(0);
        }
        let mut client = Client { stream, partial: Vec::new() };
        if greeting.iter().all(|said| client.tell(said)) {
            self.clients.push(client);
        }
    }

    pub(super) fn accept(&mut self, greeting: &[Said]) {
        // At most as many as there is room for: nobody who connects for ever keeps the keeper from its work.
        for _ in 0..MOST_CLIENTS {
            let Ok((stream, _)) = self.listener.accept() else { return };
            self.add(stream, greeting);
        }
    }

    /// Reads once from each client named by its place in [`Self::fds`] and answers its lines.
    pub(super) fn serve(&mut self, ready: &[bool], mut answer: impl FnMut(&str) -> Said) {
        let mut place = 0;
        self.clients.retain_mut(|client| {
            place += 1;
            !ready.get(place).copied().unwrap_or(false) || client.serve(&mut answer)
        });
    }

    pub(super) fn tell_all(&mut self, said: &Said) {
        self.clients.retain_mut(|client| client.tell(said));
    }
}

impl Client {
    /// Whether it may stay.
    fn serve(&mut self, answer: &mut impl FnMut(&str) -> Said) -> bool {
        let mut chunk = [0; MAX_LINE];
        let count = match self.stream.read(&mut chunk) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(error) => return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        };
        for byte in &chunk[..count] {
            if *byte != b'\n' {
                self.partial.push(*byte);
                if self.partial.len() >= MAX_LINE {
                    return false;
                }
                continue;
            }
            let said = match std::str::from_utf8(&self.partial) {
                Ok(line) => answer(line),
                Err(_) => return false,
            };
            self.partial.clear();
            if !self.tell(&said) {
                return false;
            }
        }
        true
    }

    /// A whole line or none: a client whose buffer is full has not read hundreds of them.
    fn tell(&mut self, said: &Said) -> bool {
        let line = format!("{said}\n");
        matches!(self.stream.write(line.as_bytes()), Ok(count) if count == line.len())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::Shutdown;

    use super::*;

    fn everybody(clients: &Clients) -> Vec<bool> {
        vec![true; clients.fds().count()]
    }

    fn fixture() -> (tempfile::TempDir, Clients) {
        let folder = tempfile::tempdir().unwrap();
        let clients = Clients::listen(&folder.path().join("sock")).unwrap();
        (folder, clients)
    }

    fn connect(clients: &mut Clients) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        clients.add(theirs, &[Said::Done]);
        ours
    }

    #[test]
    fn lines_are_answered_one_by_one_wherever_they_are_cut() {
        let (_folder, mut clients) = fixture();
        let mut client = connect(&mut clients);
        let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "done");
        let mut heard = Vec::new();
        for piece in ["sta", "tus\nkill\nsto", "p 5\n"] {
            client.write_all(piece.as_bytes()).unwrap();
            clients.serve(&everybody(&clients), |line| {
                heard.push(line.to_owned());
                Said::Gone
            });
        }
        assert_eq!(heard, ["status", "kill", "stop 5"]);
        for _ in 0..3 {
            assert_eq!(lines.next().unwrap().unwrap(), "gone");
        }
    }

    #[test]
    fn a_client_that_sends_no_line_is_dropped() {
        let (_folder, mut clients) = fixture();
        let mut endless = connect(&mut clients);
        let mut garbage = connect(&mut clients);
        let polite = connect(&mut clients);
        endless.write_all(&[b'x'; 2 * MAX_LINE]).unwrap();
        garbage.write_all(&[0xff, b'\n']).unwrap();
        for _ in 0..3 {
            let ready: Vec<bool> =
                std::iter::once(false).chain((0..clients.clients.len()).map(|_| true)).collect();
            clients.serve(&ready, |_| Said::Done);
        }
        assert_eq!(clients.clients.len(), 1);
        polite.shutdown(Shutdown::Write).unwrap();
        clients.serve(&everybody(&clients), |_| Said::Done);
        assert!(clients.clients.is_empty(), "a client that hung up is let go");
    }

    #[test]
    fn a_client_that_does_not_read_is_dropped_and_the_others_are_told() {
        let (_folder, mut clients) = fixture();
        let _deaf = connect(&mut clients);
        let mut listening = connect(&mut clients);
        let mut chunk = [0; 4096];
        let mut told = 0;
        while clients.clients.len() == 2 {
            clients.tell_all(&Said::Refused("x".repeat(200)));
            told += 1;
            let _ = listening.read(&mut chunk).unwrap();
            assert!(told < 100_000, "a full buffer is noticed");
        }
        clients.tell_all(&Said::Done);
        assert_eq!(clients.clients.len(), 1);
    }

    #[test]
    fn of_too_many_the_longest_connected_goes() {
        let (folder, mut clients) = fixture();
        let mut first = connect(&mut clients);
        let others: Vec<_> =
            (0..MOST_CLIENTS).map(|_| UnixStream::connect(folder.path().join("sock")).unwrap()).collect();
        clients.accept(&[]);
        assert_eq!(clients.clients.len(), MOST_CLIENTS);
        let mut all = Vec::new();
        first.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"done\n");
        drop(others);
    }
}
