//! Opening: twice, by a newer program, with damaged rows; and who may know of the engine.

use std::error::Error;
use std::path::Path;

use proto::state::{Role, Severity};
use sea_orm::ConnectionTrait;

use crate::clock::Time;
use crate::db::tests::fixture::{TestDb, on_both_engines};
use crate::db::{Db, DbError, EventFilter, NewEvent, PageRequest, User};

on_both_engines!(
    a_database_is_opened_again_with_all_that_is_in_it,
    a_database_of_a_program_too_new_is_refused_in_words,
    a_database_to_which_a_newer_program_only_added_is_used,
    a_damaged_row_is_named,
    three_hundred_writers_at_once_are_all_served,
);

async fn a_database_is_opened_again_with_all_that_is_in_it(it: TestDb) {
    it.db.put_setting("a", "b").await.unwrap();
    it.db.ping().await.unwrap();
    it.db.close().await.unwrap();
    assert!(it.db.setting("a").await.is_err());
    let again = Db::open(&it.url).await.unwrap();
    assert_eq!(again.setting("a").await.unwrap().as_deref(), Some("b"));
}

/// What a program of a later version left: a change that this one does not know, and what it says of it.
async fn used_by_a_newer_program(it: &TestDb, needs: Option<&str>) {
    let future = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m29990101_000001_future', 0)";
    it.db.writer().execute_unprepared(future).await.unwrap();
    it.db.writer().execute_unprepared("ALTER TABLE users ADD COLUMN later text").await.unwrap();
    it.db.put_setting("database_program", "99.1.0").await.unwrap();
    if let Some(needs) = needs {
        it.db.put_setting("database_needs", needs).await.unwrap();
    }
}

async fn is_refused(it: &TestDb) {
    let error = Db::open(&it.url).await.unwrap_err();
    assert!(
        matches!(&error, DbError::Newer { change, .. } if change == "m29990101_000001_future"),
        "{error:?}"
    );
    let said = error.to_string();
    assert!(said.contains("deployex 99.1.0") && said.contains(env!("CARGO_PKG_VERSION")), "{said}");
}

async fn a_database_of_a_program_too_new_is_refused_in_words(it: TestDb) {
    used_by_a_newer_program(&it, Some("m29990101_000001_future")).await;
    is_refused(&it).await;
    // Nor where a change of this program's own is missing: the other's past was another.
    it.db.put_setting("database_needs", "m20261123_000001_applications").await.unwrap();
    let earlier = "DELETE FROM seaql_migrations WHERE version = 'm20261128_000014_history_of_upgrades'";
    it.db.writer().execute_unprepared(earlier).await.unwrap();
    is_refused(&it).await;
    assert_eq!(
        it.db.setting("database_program").await.unwrap().as_deref(),
        Some("99.1.0"),
        "nothing was changed"
    );
}

async fn a_database_to_which_a_newer_program_only_added_is_used(it: TestDb) {
    let stands = it.db.setting("database_needs").await.unwrap().unwrap();
    used_by_a_newer_program(&it, None).await;
    let ann = |name: &str| User {
        name: name.to_owned(),
        role: Role::Admin,
        password_hash: String::new(),
        created_at: Time(1),
    };
    it.db.add_user(&ann("ann")).await.unwrap();
    let older = Db::open(&it.url).await.unwrap();
    older.add_user(&ann("bob")).await.unwrap();
    assert_eq!(older.users().await.unwrap().len(), 2);
    // The newer one finds what it left.
    assert_eq!(older.setting("database_program").await.unwrap().as_deref(), Some("99.1.0"));
    assert_eq!(older.setting("database_needs").await.unwrap(), Some(stands));
}

async fn a_damaged_row_is_named(it: TestDb) {
    let password_hash = String::new();
    let ann = User { name: "ann".to_owned(), role: Role::Admin, password_hash, created_at: Time(1) };
    it.db.add_user(&ann).await.unwrap();
    it.db.writer().execute_unprepared("UPDATE users SET role = 'king'").await.unwrap();
    let error = it.db.users().await.unwrap_err();
    assert_eq!(error.to_string(), "row ann of table users cannot be read: column role");
    assert_eq!(error.source().unwrap().to_string(), "\"king\" is not a word known here");
}

async fn three_hundred_writers_at_once_are_all_served(it: TestDb) {
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..300 {
        let db = it.db.clone();
        tasks.spawn(async move {
            let event = NewEvent::new(Time(n), "test", Severity::Info, "x");
            db.record_events(&[event]).await.unwrap();
            db.setting_or_insert("the one", &n.to_string()).await.unwrap()
        });
    }
    let mut seen = tasks.join_all().await;
    seen.dedup();
    assert_eq!(seen.len(), 1, "all got the same value");
    let page = it.db.events(&EventFilter::default(), PageRequest::newest(1000)).await.unwrap();
    assert_eq!(page.items.len(), 300);
}

#[test]
fn nothing_outside_this_folder_imports_the_database_library() {
    fn search(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("src/db") || path.ends_with("src/db.rs") {
                continue;
            }
            if path.is_dir() {
                search(&path, found);
            } else if std::fs::read_to_string(&path).is_ok_and(|text| text.contains("sea_orm")) {
                found.push(path.display().to_string());
            }
        }
    }
    let mut found = Vec::new();
    search(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert_eq!(found, [""; 0]);
}
