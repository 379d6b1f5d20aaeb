//! What a replica's server answers, as the test says, and who asked it for what. The replica itself listens: a stranger on its
//! port would not make it ready.
//!
//! It is told by files: `{path}.answer` is sent as it stands, each question adds a byte to `{path}.asked`, `slip` spoils one
//! answer, and where `gone` is it listens no more.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;

use proto::pb;
use tempfile::TempDir;

use super::world::eventually;

pub(crate) struct Server {
    pub(crate) port: u16,
    folder: TempDir,
}

impl Server {
    pub(crate) fn new() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { port: free.local_addr().unwrap().port(), folder: tempfile::tempdir().unwrap() }
    }

    /// The same assignment, of a program that serves here.
    pub(crate) fn serves(&self, mut assignment: pb::Assignment) -> pb::Assignment {
        let application = &mut assignment.applications[0];
        application.ports = vec![pb::PortBase { key: "PORT".to_owned(), base: u32::from(self.port) }];
        let folder = self.folder.path().to_string_lossy().into_owned();
        application.env.push(pb::EnvEntry { key: "SERVES".to_owned(), value: folder });
        assignment
    }

    /// From now on, to this path; 200 until then.
    pub(crate) fn answer(&self, path: &str, status: u16, body: &str) {
        let new = self.folder.path().join("new");
        let length = body.len();
        fs::write(&new, format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}")).unwrap();
        fs::rename(new, self.file(path, "answer")).unwrap();
    }

    /// The next question gets a bad answer, the one after that a good one again.
    pub(crate) fn slip_once(&self) {
        fs::write(self.folder.path().join("slip"), "").unwrap();
    }

    pub(crate) fn asked(&self, path: &str) -> u64 {
        fs::metadata(self.file(path, "asked")).map_or(0, |it| it.len())
    }

    /// It listens no more, and lives on.
    pub(crate) async fn leave(&self) {
        fs::write(self.folder.path().join("gone"), "").unwrap();
        let refused = || TcpStream::connect(("127.0.0.1", self.port)).is_err().then_some(());
        eventually("a port that nobody listens on", refused).await;
    }

    fn file(&self, path: &str, what: &str) -> PathBuf {
        self.folder.path().join(format!("{}.{what}", path.replace('/', "_")))
    }
}

/// What a program does that has `SERVES` in its environment, as a line of a shell script.
pub(crate) const SERVE: &str = r#"exec erl -noshell -eval '
Dir = os:getenv("SERVES"),
{ok, L} = gen_tcp:listen(list_to_integer(os:getenv("PORT")),
    [binary, {ip, {127, 0, 0, 1}}, {reuseaddr, true}, {packet, http_bin}, {active, false}]),
Serve = fun Next() ->
    {ok, S} = gen_tcp:accept(L),
    case gen_tcp:recv(S, 0) of
        {ok, {http_request, _, {abs_path, Path}, _}} ->
            Skip = fun Rest() -> case gen_tcp:recv(S, 0) of {ok, {http_header, _, _, _, _}} -> Rest(); _ -> ok end end,
            Skip(),
            Name = filename:join(Dir, string:replace(binary_to_list(Path), "/", "_", all)),
            ok = file:write_file([Name, ".asked"], "x", [append]),
            Answer = case {file:delete(filename:join(Dir, "slip")), file:read_file([Name, ".answer"])} of
                {ok, _} -> "HTTP/1.1 500 X\r\ncontent-length: 6\r\n\r\na slip";
                {_, {ok, Said}} -> Said;
                _ -> "HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nok"
            end,
            gen_tcp:send(S, Answer);
        _ -> ok
    end,
    gen_tcp:close(S),
    case filelib:is_file(filename:join(Dir, "gone")) of
        true -> gen_tcp:close(L), timer:sleep(infinity);
        false -> Next()
    end
end,
Serve().'"#;
