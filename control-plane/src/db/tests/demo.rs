//! On which databases a demo may start.

use proto::state::Role;

use crate::clock::Time;
use crate::db::tests::fixture::{TestDb, on_both_engines};
use crate::db::{Db, DbError, User};

on_both_engines!(
    a_demo_starts_on_what_is_new_and_on_its_own,
    a_demo_does_not_start_on_what_was_used_for_real,
    a_demo_does_not_start_where_there_are_users_it_does_not_know,
);

async fn demo(it: &TestDb) -> Result<(), DbError> {
    Db::open_for_demo(&it.url).await?.close().await
}

async fn add_admin(it: &TestDb) {
    let (name, password_hash) = ("admin".to_owned(), "…".to_owned());
    let admin = User { name, role: Role::Admin, password_hash, created_at: Time(1) };
    it.db.add_user(&admin).await.unwrap();
}

async fn a_demo_starts_on_what_is_new_and_on_its_own(it: TestDb) {
    demo(&it).await.unwrap();
    add_admin(&it).await;
    demo(&it).await.unwrap();
}

async fn a_demo_does_not_start_on_what_was_used_for_real(it: TestDb) {
    demo(&it).await.unwrap();
    Db::open_for_real(&it.url).await.unwrap().close().await.unwrap();
    for _ in 0..2 {
        assert!(matches!(demo(&it).await, Err(DbError::NotADemos)));
    }
    Db::open_for_real(&it.url).await.unwrap().close().await.unwrap();
}

async fn a_demo_does_not_start_where_there_are_users_it_does_not_know(it: TestDb) {
    add_admin(&it).await;
    assert!(matches!(demo(&it).await, Err(DbError::NotADemos)));
}
