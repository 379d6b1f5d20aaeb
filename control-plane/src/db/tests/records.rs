//! Events, audit, settings, certificate authorities.

use std::collections::BTreeMap;

use proto::state::{Role, Severity};
use sea_orm::ConnectionTrait as _;

use crate::clock::Time;
use crate::db::tests::fixture::{TestDb, on_both_engines};
use crate::db::{AuditEntry, EventFilter, NewApiToken, NewAuthority, NewEvent, NewJoinToken, PageRequest};

on_both_engines!(
    events_come_back_newest_first_page_by_page,
    events_are_found_by_what_they_speak_of,
    old_events_are_forgotten_in_batches,
    the_audit_keeps_who_asked_for_what,
    what_cannot_be_audited_is_not_done,
    a_setting_is_written_over_or_kept,
    of_two_first_authorities_one_is_stored,
);

fn event(at: u64, text: &str) -> NewEvent {
    NewEvent::new(Time(at), "test", Severity::Info, text)
}

async fn events_come_back_newest_first_page_by_page(it: TestDb) {
    let written: Vec<_> = (0..25).map(|n| event(n, &format!("number {n}"))).collect();
    it.db.record_events(&written).await.unwrap();
    let mut seen = Vec::new();
    let mut request = PageRequest::newest(10);
    loop {
        let page = it.db.events(&EventFilter::default(), request).await.unwrap();
        assert!(page.items.len() <= 10);
        seen.extend(page.items.into_iter().map(|event| event.event));
        let Some(next) = page.next else { break };
        request.after = Some(next);
    }
    seen.reverse();
    assert_eq!(seen, written);
}

async fn events_are_found_by_what_they_speak_of(it: TestDb) {
    let mut of_app = event(5, "of an application");
    of_app.app = Some("shop".parse().unwrap());
    of_app.slot = Some("2".parse().unwrap());
    of_app.severity = Severity::Warning;
    of_app.data.insert("port".to_owned(), 4000.into());
    it.db.record_events(&[event(1, "of nothing"), of_app.clone()]).await.unwrap();
    let of_the_app = EventFilter { app: Some("shop".parse().unwrap()), ..EventFilter::default() };
    let loud = EventFilter { at_least: Some(Severity::Warning), ..EventFilter::default() };
    let late = EventFilter { since: Some(Time(5)), until: Some(Time(6)), ..EventFilter::default() };
    for filter in [of_the_app, loud, late] {
        let page = it.db.events(&filter, PageRequest::newest(10)).await.unwrap();
        let found: Vec<_> = page.items.into_iter().map(|event| event.event).collect();
        assert_eq!(found, [of_app.clone()]);
    }
    let other = EventFilter { kind: Some("other".to_owned()), ..EventFilter::default() };
    assert_eq!(it.db.events(&other, PageRequest::newest(10)).await.unwrap().items, []);
}

async fn old_events_are_forgotten_in_batches(it: TestDb) {
    let written: Vec<_> = (0..2500).map(|n| event(n, "x")).collect();
    it.db.record_events(&written).await.unwrap();
    assert_eq!(it.db.forget_events_before(Time(2490)).await.unwrap(), 2490);
    let left = it.db.events(&EventFilter::default(), PageRequest::newest(100)).await.unwrap();
    assert_eq!(left.items.len(), 10);
}

async fn the_audit_keeps_who_asked_for_what(it: TestDb) {
    let entry = |n: u64| AuditEntry {
        at: Time(n),
        who: "local:root".to_owned(),
        what: "deploy".to_owned(),
        object: "shop".to_owned(),
        detail: format!("{n}"),
    };
    for n in 0..3 {
        it.db.add_api_token(&api_token(n), &[], Some(&entry(n))).await.unwrap();
    }
    let first = it.db.audit(PageRequest::newest(2)).await.unwrap();
    assert_eq!(first.items, [entry(2), entry(1)]);
    let rest = it.db.audit(PageRequest { after: first.next, limit: 2 }).await.unwrap();
    assert_eq!((rest.items, rest.next), (vec![entry(0)], None));
}

async fn what_cannot_be_audited_is_not_done(it: TestDb) {
    let entry = AuditEntry {
        at: Time(1),
        who: "ann".to_owned(),
        what: "token.create".to_owned(),
        object: String::new(),
        detail: String::new(),
    };
    let token = it.db.add_api_token(&api_token(1), &[], None).await.unwrap();
    let join = NewJoinToken {
        hash: [1; 32],
        uses: 1,
        labels: BTreeMap::new(),
        created_by: "ann".to_owned(),
        created_at: Time(1),
        expires_at: Time(9),
    };
    let connection = sea_orm::Database::connect(&it.url).await.unwrap();
    connection.execute_unprepared("DROP TABLE audit").await.unwrap();
    connection.close().await.unwrap();
    assert!(it.db.add_api_token(&api_token(2), &[], Some(&entry)).await.is_err());
    assert!(it.db.revoke_api_token(token.id, &[], Some(&entry)).await.is_err());
    assert_eq!(it.db.api_tokens().await.unwrap(), [token]);
    assert!(it.db.add_join_token(&join, &[], Some(entry)).await.is_err());
    assert_eq!(it.db.join_tokens(Time(2)).await.unwrap(), []);
}

fn api_token(n: u64) -> NewApiToken {
    let hash = [u8::try_from(n).unwrap(); 32];
    NewApiToken {
        name: format!("token {n}"),
        hash,
        role: Role::Viewer,
        created_at: Time(n),
        expires_at: None,
    }
}

async fn a_setting_is_written_over_or_kept(it: TestDb) {
    assert_eq!(it.db.setting("hostname").await.unwrap(), None);
    assert_eq!(it.db.setting_or_insert("hostname", "a").await.unwrap(), "a");
    assert_eq!(it.db.setting_or_insert("hostname", "b").await.unwrap(), "a");
    it.db.put_setting("hostname", "c").await.unwrap();
    assert_eq!(it.db.setting("hostname").await.unwrap().as_deref(), Some("c"));
}

async fn of_two_first_authorities_one_is_stored(it: TestDb) {
    let new = |n: u8| NewAuthority {
        kind: "agents".to_owned(),
        certificate_pem: format!("certificate {n}"),
        encrypted_key: vec![n, 0, 255],
        created_at: Time(u64::from(n)),
    };
    let (a, b) = (new(1), new(2));
    let (first, second) = tokio::join!(it.db.first_authority(&a), it.db.first_authority(&b));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first, second);
    let next = it.db.add_authority(&new(3)).await.unwrap();
    it.db.retire_authority(first[0].id, Time(9)).await.unwrap();
    let all = it.db.authorities("agents").await.unwrap();
    assert_eq!(all.iter().map(|it| it.id).collect::<Vec<_>>(), [next.id, first[0].id]);
    assert_eq!(all[1].retired_at, Some(Time(9)));
    assert_eq!(it.db.authorities("application:shop").await.unwrap(), []);
}
