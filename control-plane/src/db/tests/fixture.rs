//! Databases for tests: the same test runs on SQLite and on PostgreSQL.

use xtask::postgres::Database;

use crate::db::Db;

/// An empty database that goes away with this.
pub(crate) struct TestDb {
    pub(crate) db: Db,
    pub(crate) url: String,
    /// What goes away with it.
    _place: Place,
}

#[expect(dead_code, reason = "held for as long as the database is used")]
enum Place {
    Folder(tempfile::TempDir),
    Server(Database),
}

impl TestDb {
    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("deployex.db").display());
        Self { db: Db::open(&url).await.unwrap(), url, _place: Place::Folder(folder) }
    }

    pub(crate) async fn postgres() -> Self {
        // A server may have to be started for it.
        let database = tokio::task::spawn_blocking(Database::create).await.unwrap();
        let database = database.unwrap_or_else(|error| panic!("no PostgreSQL to test with: {error:#}"));
        let url = database.url().to_owned();
        Self { db: Db::open(&url).await.unwrap(), url, _place: Place::Server(database) }
    }
}

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
