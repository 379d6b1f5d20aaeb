//! Versions of the configuration: numbered without a gap, one winner of two, the newest kept.

use proto::configuration::{Change, Class, Difference, Origin, Side};
use proto::ids::Digest;
use sea_orm::ConnectionTrait as _;

use super::fleet::{app, configure, events_told, told};
use crate::clock::Time;
use crate::db::tests::fixture::{TestDb, on_both_engines};
use crate::db::{ApplicationsDiff, AuditEntry, Db, DbError, NewVersion, PageRequest};

on_both_engines!(
    a_version_is_read_as_it_was_written,
    of_two_versions_at_once_one_is_stored_and_nothing_of_the_other,
    old_versions_are_forgotten_and_their_numbers_are_not_used_again,
    a_database_that_knows_of_no_versions_yet_is_left_as_it_is,
);

fn version(base: u64, by: &str) -> NewVersion {
    let change = Change {
        key: "port".to_owned(),
        class: Class::Restart,
        before: Side::Absent,
        after: Side::Value("5003".to_owned()),
    };
    NewVersion {
        base,
        text: format!("sealed {base}").into_bytes(),
        sha256: Digest([7; 32]),
        file_sha256: base.is_multiple_of(2).then_some(Digest([8; 32])),
        by: by.to_owned(),
        origin: Origin::Restore(3),
        changes: Difference { applications: Vec::new(), control_plane: vec![change] },
    }
}

async fn put(db: &Db, version: NewVersion) -> Result<(), DbError> {
    let events = told(&format!("{} applied it", version.by));
    let audit = AuditEntry {
        at: Time(5),
        who: version.by.clone(),
        what: "configuration.apply".to_owned(),
        object: String::new(),
        detail: String::new(),
    };
    let diff = ApplicationsDiff {
        dropped: vec![app("shop")],
        version: Some(version),
        events,
        audit: Some(audit),
        ..ApplicationsDiff::default()
    };
    db.put_applications(diff, Time(5)).await.map(drop)
}

async fn a_version_is_read_as_it_was_written(it: TestDb) {
    assert_eq!(it.db.newest_configuration().await.unwrap(), None);
    for base in 0..3 {
        put(&it.db, version(base, "ann")).await.unwrap();
    }
    let newest = it.db.newest_configuration().await.unwrap().unwrap();
    assert_eq!(newest.text, b"sealed 2");
    let NewVersion { text: _, base: _, sha256, file_sha256, by, origin, changes } = version(2, "ann");
    assert_eq!((newest.version.number, newest.version.at), (3, Time(5)));
    let stored = newest.version.clone();
    assert_eq!(
        (stored.sha256, stored.file_sha256, stored.by, stored.origin, stored.changes),
        (sha256, file_sha256, by, origin, changes)
    );
    assert_eq!(it.db.configuration(3).await.unwrap(), Some(newest));
    assert_eq!(it.db.configuration(2).await.unwrap().unwrap().version.file_sha256, None);
    assert_eq!(it.db.configuration(4).await.unwrap(), None);
    assert_eq!(it.db.configuration(u64::MAX).await.unwrap(), None);
    let page = it.db.configurations(PageRequest::newest(2)).await.unwrap();
    assert_eq!(page.items.iter().map(|it| it.number).collect::<Vec<_>>(), [3, 2]);
    let rest = it.db.configurations(PageRequest { after: page.next, limit: 2 }).await.unwrap();
    assert_eq!(rest.items.iter().map(|it| it.number).collect::<Vec<_>>(), [1]);
    let peeked = Db::peek_at_configuration(&it.url).await.unwrap().unwrap();
    assert_eq!(peeked.version.number, 3);
}

async fn of_two_versions_at_once_one_is_stored_and_nothing_of_the_other(it: TestDb) {
    configure(&it.db, &["shop"]).await;
    put(&it.db, version(0, "start")).await.unwrap();
    let mut both = tokio::task::JoinSet::new();
    for by in ["ann", "bob", "eve"] {
        let db = it.db.clone();
        both.spawn(async move { (by, put(&db, version(1, by)).await) });
    }
    let (won, lost): (Vec<_>, Vec<_>) = both.join_all().await.into_iter().partition(|it| it.1.is_ok());
    assert_eq!((won.len(), lost.len()), (1, 2));
    assert!(lost.iter().all(|(_, result)| result.as_ref().is_err_and(DbError::is_conflict)), "{lost:?}");
    let newest = it.db.newest_configuration().await.unwrap().unwrap().version;
    assert_eq!((newest.number, newest.by.as_str()), (2, won[0].0));
    assert_eq!(
        events_told(&it.db).await,
        ["start applied it".to_owned(), format!("{} applied it", won[0].0)]
    );
    assert_eq!(it.db.audit(PageRequest::newest(9)).await.unwrap().items.len(), 2);
}

async fn old_versions_are_forgotten_and_their_numbers_are_not_used_again(it: TestDb) {
    for base in 0..120 {
        put(&it.db, version(base, "ann")).await.unwrap();
    }
    let page = it.db.configurations(PageRequest::newest(500)).await.unwrap();
    let numbers: Vec<u64> = page.items.iter().map(|it| it.number).collect();
    assert_eq!(numbers, (21..=120).rev().collect::<Vec<_>>());
    assert!(put(&it.db, version(0, "ann")).await.unwrap_err().is_conflict());
}

async fn a_database_that_knows_of_no_versions_yet_is_left_as_it_is(it: TestDb) {
    it.db.writer().execute_unprepared("DROP TABLE configurations").await.unwrap();
    assert_eq!(Db::peek_at_configuration(&it.url).await.unwrap(), None);
    assert!(it.db.newest_configuration().await.is_err(), "nothing was made");
}
