//! Users, sessions, tokens.

use proto::state::Role;

use crate::clock::Time;
use crate::db::tests::fixture::{TestDb, on_both_engines};
use crate::db::{NewApiToken, NewSession, User};

on_both_engines!(
    a_user_is_added_once_and_changed,
    a_session_is_found_until_it_expires,
    a_new_password_ends_every_session,
    an_api_token_is_found_by_its_hash_until_it_expires_or_is_revoked,
);

fn user(name: &str) -> User {
    User {
        name: name.to_owned(),
        role: Role::Operator,
        password_hash: "$2b$…".to_owned(),
        created_at: Time(1),
    }
}

fn new_session(n: u8) -> NewSession {
    NewSession {
        hash: [n; 32],
        user: "ann".to_owned(),
        created_at: Time(1),
        expires_at: Time(100),
        address: "127.0.0.1".to_owned(),
        user_agent: "curl".to_owned(),
    }
}

async fn a_user_is_added_once_and_changed(it: TestDb) {
    assert!(!it.db.has_users().await.unwrap());
    it.db.add_user(&user("ann")).await.unwrap();
    assert!(it.db.has_users().await.unwrap());
    let again = it.db.add_user(&user("ann")).await.unwrap_err();
    assert!(again.is_taken(), "{again}");
    assert_eq!(again.to_string(), "cannot add a user: a user named ann exists already");
    it.db.set_role("ann", Role::Admin).await.unwrap();
    assert_eq!(it.db.user("ann").await.unwrap(), Some(User { role: Role::Admin, ..user("ann") }));
    it.db.add_user(&user("Bob")).await.unwrap();
    let names: Vec<_> = it.db.users().await.unwrap().into_iter().map(|user| user.name).collect();
    assert_eq!(names, ["Bob", "ann"]);
    it.db.remove_user("ann").await.unwrap();
    assert!(it.db.remove_user("ann").await.unwrap_err().is_missing());
    assert!(it.db.set_role("ann", Role::Admin).await.unwrap_err().is_missing());
}

async fn a_session_is_found_until_it_expires(it: TestDb) {
    it.db.add_user(&user("ann")).await.unwrap();
    let session = it.db.add_session(&new_session(7), None).await.unwrap();
    let found = it.db.session(&[7; 32], Time(99)).await.unwrap().unwrap();
    assert_eq!(found, (session.clone(), user("ann")));
    assert_eq!(it.db.session(&[7; 32], Time(100)).await.unwrap(), None);
    assert_eq!(it.db.session(&[8; 32], Time(1)).await.unwrap(), None);
    it.db.touch_session(session.id, Time(50), Time(200)).await.unwrap();
    let touched = it.db.session(&[7; 32], Time(150)).await.unwrap().unwrap().0;
    assert_eq!((touched.last_used_at, touched.expires_at), (Time(50), Time(200)));
    assert_eq!(it.db.sessions(Some("ann"), Time(0)).await.unwrap(), [touched]);
    assert_eq!(it.db.sessions(Some("bob"), Time(0)).await.unwrap(), []);
    it.db.end_session(session.id, None).await.unwrap();
    assert!(it.db.end_session(session.id, None).await.unwrap_err().is_missing());
    it.db.add_session(&new_session(9), None).await.unwrap();
    assert_eq!(it.db.forget_expired_sessions(Time(100)).await.unwrap(), 1);
}

async fn a_new_password_ends_every_session(it: TestDb) {
    it.db.add_user(&user("ann")).await.unwrap();
    it.db.add_session(&new_session(7), None).await.unwrap();
    it.db.set_password("ann", "other", None, &[], None).await.unwrap();
    assert_eq!(it.db.session(&[7; 32], Time(1)).await.unwrap(), None);
    assert_eq!(it.db.user("ann").await.unwrap().unwrap().password_hash, "other");
    it.db.add_session(&new_session(8), None).await.unwrap();
    it.db.remove_user("ann").await.unwrap();
    assert_eq!(it.db.sessions(None, Time(0)).await.unwrap(), []);
}

async fn an_api_token_is_found_by_its_hash_until_it_expires_or_is_revoked(it: TestDb) {
    let new = NewApiToken {
        name: "ci".to_owned(),
        hash: [1; 32],
        role: Role::Operator,
        created_at: Time(1),
        expires_at: Some(Time(10)),
    };
    let token = it.db.add_api_token(&new, &[], None).await.unwrap();
    assert!(
        it.db
            .add_api_token(&NewApiToken { hash: [2; 32], ..new.clone() }, &[], None)
            .await
            .unwrap_err()
            .is_taken()
    );
    assert_eq!(it.db.api_token(&[1; 32], Time(9)).await.unwrap(), Some(token.clone()));
    assert_eq!(it.db.api_token(&[1; 32], Time(10)).await.unwrap(), None);
    let lasting = NewApiToken { name: "for ever".to_owned(), hash: [3; 32], expires_at: None, ..new };
    let lasting = it.db.add_api_token(&lasting, &[], None).await.unwrap();
    it.db.touch_api_token(lasting.id, Time(5)).await.unwrap();
    let found = it.db.api_token(&[3; 32], Time(1_000_000)).await.unwrap().unwrap();
    assert_eq!(found.last_used_at, Some(Time(5)));
    it.db.revoke_api_token(token.id, &[], None).await.unwrap();
    assert_eq!(it.db.api_tokens().await.unwrap(), [found]);
}
