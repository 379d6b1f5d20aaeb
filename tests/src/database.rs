//! The two database engines that a story is told on.

use xtask::postgres::Database;

/// What a control plane keeps its data in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// In a file of the control plane's own.
    #[default]
    Sqlite,
    Postgres,
}

impl Engine {
    /// An empty database where that needs a server.
    pub fn create(self) -> Option<Database> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some(Database::create().unwrap_or_else(|error| panic!("{error:#}"))),
        }
    }
}

/// Turns each story, an `async fn name(engine: Engine)`, into one test per engine.
#[macro_export]
macro_rules! on_both_engines {
    ($($name:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::database::Engine::Sqlite).await;
            })+
        }

        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::database::Engine::Postgres).await;
            })+
        }
    };
}
