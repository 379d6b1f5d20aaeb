//! Databases for tests: the same test runs on SQLite and on PostgreSQL.

use super::Db;

/// An empty database that goes away with this.
pub(crate) struct TestDb {
    pub(crate) db: Db,
    _folder: Option<tempfile::TempDir>,
}

impl TestDb {
    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("deployex.db").display());
        Self { db: Db::open(&url).await.unwrap(), _folder: Some(folder) }
    }
}

/// Turns `async fn name(db: TestDb)` into one test per engine.
macro_rules! on_both_engines {
    ($($name:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::db::fixture::TestDb::sqlite().await).await;
            })+
        }
    };
}
pub(crate) use on_both_engines;
