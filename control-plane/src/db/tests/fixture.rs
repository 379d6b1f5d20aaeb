//! Databases for tests: the same test runs on SQLite and on PostgreSQL.
//!
//! One PostgreSQL server serves all test processes of a machine: whoever comes first starts it, as an ordinary user, in a
//! temporary folder and on a unix socket alone; it stops and goes away some seconds after the last process has ended.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use sea_orm::{ConnectionTrait, Database};
use uuid::Uuid;

use crate::db::Db;

/// An empty database that goes away with this.
pub(crate) struct TestDb {
    pub(crate) db: Db,
    pub(crate) url: String,
    _folder: Option<tempfile::TempDir>,
}

impl TestDb {
    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("deployex.db").display());
        Self { db: Db::open(&url).await.unwrap(), url, _folder: Some(folder) }
    }

    pub(crate) async fn postgres() -> Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        let server = SERVER.get_or_init(Server::join);
        let name = format!("test_{}", Uuid::now_v7().simple());
        let admin = Database::connect(server.url("postgres")).await.unwrap();
        admin.execute_unprepared(&format!("CREATE DATABASE {name}")).await.unwrap();
        admin.close().await.unwrap();
        let url = server.url(&name);
        Self { db: Db::open(&url).await.unwrap(), url, _folder: None }
    }
}

/// The server that all test processes share, for as long as this process lives.
struct Server {
    folder: PathBuf,
    /// Held shared: while anybody holds it, the server is not stopped.
    _in_use: File,
}

impl Server {
    fn join() -> Self {
        let user = rustix::process::geteuid().as_raw();
        let folder = std::env::temp_dir().join(format!("deployex-test-postgres-{user}"));
        std::fs::create_dir_all(&folder).unwrap();
        let in_use = lock_file(&folder.join("in-use"));
        in_use.lock_shared().unwrap();
        let starting = lock_file(&folder.join("starting"));
        starting.lock().unwrap();
        let started = Command::new("sh").args(["-c", START, "sh"]).arg(&folder).output().unwrap();
        let said = String::from_utf8_lossy(&started.stderr);
        assert!(started.status.success(), "no PostgreSQL to test with: {said}");
        Self { folder, _in_use: in_use }
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://deployex@localhost/{database}?host={}", self.folder.join("socket").display())
    }
}

fn lock_file(path: &Path) -> File {
    File::options().create(true).truncate(false).read(true).write(true).open(path).unwrap()
}

/// Starts the server in folder `$1` unless it runs, and leaves behind who stops it when nobody holds `in-use` any more.
const START: &str = r#"
set -e
dir=$1
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -x "$bin/initdb" ] || { echo 'PostgreSQL is missing: apt-get install postgresql' >&2; exit 1; }
as=
user=$(id -un)
if [ "$(id -u)" = 0 ]; then
    # It refuses to run as root.
    user=postgres; id "$user" >/dev/null 2>&1 || user=nobody
    as="setpriv --reuid=$user --regid=$(id -g "$user") --clear-groups"
    chmod 711 "$dir"
fi
cd /
$as "$bin/pg_ctl" -D "$dir/data" status >/dev/null 2>&1 && exit 0
rm -rf "$dir/data" "$dir/socket"
install -d -m 700 -o "$user" "$dir/data" "$dir/socket"
{
    $as "$bin/initdb" -D "$dir/data" -U deployex --auth=trust -E UTF8 --locale=C.UTF-8 --no-sync
    $as "$bin/pg_ctl" -D "$dir/data" -w -l "$dir/data/log" -o "-c listen_addresses= \
        -c unix_socket_directories=$dir/socket -c fsync=off -c synchronous_commit=off -c full_page_writes=off \
        -c max_connections=300" start
} >"$dir/start.log" 2>&1 || { cat "$dir/start.log" >&2; exit 1; }
stop="$as '$bin/pg_ctl' -D '$dir/data' -m immediate stop; rm -rf '$dir/data' '$dir/socket'"
setsid sh -c "while sleep 5; do flock -n '$dir/in-use' sh -c \"$stop\" && exit; done" </dev/null >/dev/null 2>&1 &
"#;

/// Turns each `async fn name(it: TestDb)` into one test per engine.
macro_rules! on_both_engines {
    ($($name:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::db::tests::fixture::TestDb::sqlite().await).await;
            })+
        }

        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::db::tests::fixture::TestDb::postgres().await).await;
            })+
        }
    };
}
pub(crate) use on_both_engines;
