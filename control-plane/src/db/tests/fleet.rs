//! Applications, releases, buckets, nodes.

use std::collections::BTreeMap;

use proto::hot_upgrade::Package;
use proto::ids::{AppName, Digest, NodeId, ReleaseKey};
use proto::state::{FaultKind, Language, Severity};
use uuid::Uuid;

use crate::clock::Time;
use crate::db::tests::fixture::{TestDb, on_both_engines};
use crate::db::{
    ApplicationsDiff, BucketFault, Db, Enrolment, EventFilter, HelloFacts, Inventory, ManualWish,
    NewApplication, NewCertificate, NewEvent, NewJoinToken, PageRequest, Release, Source,
};
use crate::spec::AppSpec;

on_both_engines!(
    an_application_keeps_its_cookie_and_history_through_changes,
    a_release_is_recorded_once,
    what_a_package_holds_is_added_to_what_was_recorded_without,
    other_pre_commands_replace_those_that_were_recorded,
    a_new_wish_of_the_bucket_ends_a_persons_wish_unless_pinned,
    a_wish_for_what_was_never_recorded_is_refused,
    a_buckets_fault_is_told_once_and_cleared,
    the_last_use_of_a_join_token_goes_to_one_node,
    a_removed_node_is_revoked_and_gives_its_name_back,
    what_an_agent_says_of_its_host_is_kept,
);

pub(super) fn app(name: &str) -> AppName {
    name.parse().unwrap()
}

pub(super) fn key(version: &str, byte: u8) -> ReleaseKey {
    ReleaseKey { version: version.parse().unwrap(), sha256: Digest([byte; 32]) }
}

pub(super) fn release(name: &str, key: ReleaseKey, at: u64) -> Release {
    Release {
        app: app(name),
        key,
        size: 12_345_678_901,
        declared_hash: Some("sha256:…".to_owned()),
        pre_commands: vec!["eval Shop.migrate()".to_owned()],
        etag: Some("\"e\"".to_owned()),
        recorded_at: Time(at),
        package: Some(Package { erts: "13.1.5".to_owned(), ..Package::default() }),
    }
}

pub(super) fn told(text: &str) -> Vec<NewEvent> {
    vec![NewEvent::new(Time(1), "test", Severity::Info, text)]
}

pub(super) async fn events_told(db: &Db) -> Vec<String> {
    let page = db.events(&EventFilter::default(), PageRequest::newest(100)).await.unwrap();
    page.items.into_iter().rev().map(|event| event.event.text).collect()
}

pub(super) async fn configure(db: &Db, names: &[&str]) {
    let put = names
        .iter()
        .map(|name| NewApplication {
            spec: AppSpec::new(app(name), Language::Elixir),
            source: Source::Yaml,
            cookie: name.as_bytes().to_vec(),
        })
        .collect();
    db.put_applications(ApplicationsDiff { put, ..ApplicationsDiff::default() }, Time(1)).await.unwrap();
}

async fn an_application_keeps_its_cookie_and_history_through_changes(it: TestDb) {
    configure(&it.db, &["shop", "Admin"]).await;
    let mut spec = AppSpec::new(app("shop"), Language::Erlang);
    spec.env_file = Some("/etc/shop.env".to_owned());
    let put = vec![NewApplication { spec: spec.clone(), source: Source::Api, cookie: b"other".to_vec() }];
    let diff =
        ApplicationsDiff { put, dropped: vec![app("Admin")], events: told("changed"), ..Default::default() };
    it.db.put_applications(diff, Time(2)).await.unwrap();
    let stored = it.db.applications().await.unwrap();
    assert_eq!(stored.iter().map(|it| it.spec.name.as_str()).collect::<Vec<_>>(), ["Admin", "shop"]);
    assert!(!stored[0].configured);
    let shop = it.db.application(&app("shop")).await.unwrap().unwrap();
    assert_eq!(shop, stored[1]);
    assert_eq!((shop.spec, shop.source, shop.cookie), (spec, Source::Api, b"shop".to_vec()));
    assert_eq!((shop.created_at, shop.updated_at), (Time(1), Time(2)));
    assert_eq!(events_told(&it.db).await, ["changed"]);
    configure(&it.db, &["Admin"]).await;
    assert!(it.db.application(&app("Admin")).await.unwrap().unwrap().configured);
}

async fn a_release_is_recorded_once(it: TestDb) {
    configure(&it.db, &["shop"]).await;
    let first = release("shop", key("1.0.0", 1), 10);
    assert!(it.db.record_release(&first, &told("new")).await.unwrap());
    let again = Release { recorded_at: Time(99), ..first.clone() };
    assert!(!it.db.record_release(&again, &told("again")).await.unwrap());
    let republished = release("shop", key("1.0.0", 2), 20);
    assert!(it.db.record_release(&republished, &[]).await.unwrap());
    assert_eq!(it.db.releases(&app("shop")).await.unwrap(), [republished.clone(), first.clone()]);
    assert_eq!(it.db.release(&app("shop"), &first.key).await.unwrap(), Some(first.clone()));
    let found = it.db.releases_of_version(&app("shop"), &first.key.version).await.unwrap();
    assert_eq!(found, [republished, first]);
    assert_eq!(events_told(&it.db).await, ["new"]);
}

async fn what_a_package_holds_is_added_to_what_was_recorded_without(it: TestDb) {
    configure(&it.db, &["shop"]).await;
    let shop = app("shop");
    let old = Release { package: None, ..release("shop", key("1.0.0", 1), 10) };
    let other = Release { package: None, ..release("shop", key("1.0.0", 2), 20) };
    for release in [&old, &other] {
        it.db.record_release(release, &[]).await.unwrap();
    }
    let package = Package { erts: "14.2".to_owned(), ..Package::default() };
    it.db.set_release_package(&shop, &old.key, &package).await.unwrap();
    let known = it.db.release(&shop, &old.key).await.unwrap();
    assert_eq!(known, Some(Release { package: Some(package), ..old }));
    assert_eq!(it.db.release(&shop, &other.key).await.unwrap(), Some(other));
}

async fn other_pre_commands_replace_those_that_were_recorded(it: TestDb) {
    configure(&it.db, &["shop"]).await;
    let (shop, first, other) = (app("shop"), key("1.0.0", 1), key("1.0.0", 2));
    for key in [&first, &other] {
        it.db.record_release(&release("shop", key.clone(), 10), &[]).await.unwrap();
    }
    let generation = async || it.db.application(&shop).await.unwrap().unwrap().generation;
    let before = generation().await;
    let commands = ["eval A.b()".to_owned(), "eval C.d()".to_owned()];
    for _ in 0..2 {
        it.db.set_pre_commands(&shop, &first, &commands, &told("changed")).await.unwrap();
    }
    let of = async |key| it.db.release(&shop, key).await.unwrap().unwrap().pre_commands;
    assert_eq!(of(&first).await, commands);
    assert_eq!(of(&other).await, ["eval Shop.migrate()"]);
    assert_eq!((generation().await, events_told(&it.db).await), (before + 1, vec!["changed".to_owned()]));
    assert!(it.db.set_pre_commands(&shop, &key("2.0.0", 3), &[], &[]).await.is_err());
}

async fn a_new_wish_of_the_bucket_ends_a_persons_wish_unless_pinned(it: TestDb) {
    configure(&it.db, &["shop"]).await;
    let shop = app("shop");
    for (n, version) in [(1, "1"), (2, "2"), (3, "3")] {
        it.db.record_release(&release("shop", key(version, n), u64::from(n)), &[]).await.unwrap();
    }
    assert!(it.db.set_bucket_wish(&shop, Some("a"), &key("1", 1), Time(5), &[]).await.unwrap());
    assert!(!it.db.set_bucket_wish(&shop, Some("b"), &key("1", 1), Time(6), &[]).await.unwrap());
    let state = it.db.bucket(&shop).await.unwrap().unwrap();
    assert_eq!((state.etag.as_deref(), state.since), (Some("b"), Time(5)));
    let wish = ManualWish { release: key("2", 2), by: "ann".to_owned(), pinned: false, at: Time(7) };
    it.db.set_manual_wish(&shop, Some(&wish), &[], None).await.unwrap();
    it.db.set_bucket_wish(&shop, Some("c"), &key("1", 1), Time(8), &[]).await.unwrap();
    let manual = || async { it.db.application(&shop).await.unwrap().unwrap().manual };
    assert_eq!(manual().await, Some(wish.clone()), "the bucket said nothing new");
    it.db.set_bucket_wish(&shop, Some("d"), &key("3", 3), Time(9), &[]).await.unwrap();
    assert_eq!(manual().await, None);
    let pin = ManualWish { pinned: true, ..wish };
    it.db.set_manual_wish(&shop, Some(&pin), &[], None).await.unwrap();
    it.db.set_bucket_wish(&shop, Some("e"), &key("1", 1), Time(10), &[]).await.unwrap();
    assert_eq!(manual().await, Some(pin));
    it.db.set_manual_wish(&shop, None, &[], None).await.unwrap();
    assert_eq!(manual().await, None);
}

async fn a_wish_for_what_was_never_recorded_is_refused(it: TestDb) {
    configure(&it.db, &["shop"]).await;
    let shop = app("shop");
    let wish = ManualWish { release: key("9", 9), by: "ann".to_owned(), pinned: false, at: Time(7) };
    let error = it.db.set_manual_wish(&shop, Some(&wish), &told("wished"), None).await.unwrap_err();
    assert!(error.is_missing(), "{error}");
    assert!(it.db.set_bucket_wish(&shop, None, &key("9", 9), Time(1), &[]).await.unwrap_err().is_missing());
    let nobody = it.db.set_manual_wish(&app("nobody"), None, &[], None).await.unwrap_err();
    assert_eq!(nobody.to_string(), "cannot store the wish for a release: there is no application nobody");
    assert_eq!(events_told(&it.db).await, [""; 0]);
}

async fn a_buckets_fault_is_told_once_and_cleared(it: TestDb) {
    configure(&it.db, &["shop"]).await;
    let shop = app("shop");
    it.db.record_release(&release("shop", key("1", 1), 1), &[]).await.unwrap();
    it.db.set_bucket_wish(&shop, Some("a"), &key("1", 1), Time(1), &[]).await.unwrap();
    let bad = BucketFault { kind: FaultKind::Broken, text: "current.json is not JSON".to_owned() };
    let bad = Some(&bad);
    assert!(it.db.set_bucket_fault(&shop, Some("b"), bad, Time(2), &told("bad")).await.unwrap());
    assert!(!it.db.set_bucket_fault(&shop, Some("b"), bad, Time(3), &told("bad")).await.unwrap());
    let state = it.db.buckets().await.unwrap().remove(&shop).unwrap();
    assert_eq!(
        (state.wish, state.fault.as_ref(), state.since),
        (Some(key("1", 1)), bad, Time(2)),
        "the wish before stays in force"
    );
    assert_eq!(state.named_at, Time(2), "another current.json than at first");
    assert!(it.db.set_bucket_wish(&shop, Some("a"), &key("1", 1), Time(4), &told("good")).await.unwrap());
    assert_eq!(it.db.bucket(&shop).await.unwrap().unwrap().fault, None);
    assert!(!it.db.set_bucket_fault(&shop, Some("a"), None, Time(5), &told("no")).await.unwrap());
    assert_eq!(events_told(&it.db).await, ["bad", "good"]);
}

pub(super) fn enrolment(name: &str, token: u8) -> Enrolment {
    Enrolment {
        id: NodeId(Uuid::now_v7()),
        name: name.parse().unwrap(),
        labels: BTreeMap::from([("role".to_owned(), "own".to_owned()), ("zone".to_owned(), "a".to_owned())]),
        agent_version: "1.0".to_owned(),
        token_hash: [token; 32],
        certificate: NewCertificate { serial: format!("serial of {name}"), not_after: Time(1000) },
    }
}

pub(super) async fn join_token(db: &Db, token: u8, uses: u16) {
    let new = NewJoinToken {
        hash: [token; 32],
        uses,
        labels: BTreeMap::from([("role".to_owned(), "web".to_owned())]),
        created_by: "ann".to_owned(),
        created_at: Time(1),
        expires_at: Time(100),
    };
    db.add_join_token(&new, &[], None).await.unwrap();
}

async fn the_last_use_of_a_join_token_goes_to_one_node(it: TestDb) {
    join_token(&it.db, 1, 2).await;
    let node = it.db.enrol(&enrolment("web-1", 1), Time(5), &[]).await.unwrap();
    assert_eq!(node.labels["role"], "web", "the token's label wins");
    assert_eq!(node.labels["zone"], "a");
    let same_name = it.db.enrol(&enrolment("web-1", 1), Time(5), &told("no")).await.unwrap_err();
    assert!(same_name.is_taken(), "{same_name}");
    assert_eq!(it.db.join_tokens(Time(5)).await.unwrap()[0].uses_left, 1, "a refused node uses nothing up");
    let (two, three) = (enrolment("web-2", 1), enrolment("web-3", 1));
    let (two, three) = tokio::join!(it.db.enrol(&two, Time(5), &[]), it.db.enrol(&three, Time(5), &[]));
    assert_eq!([&two, &three].iter().filter(|it| it.is_ok()).count(), 1);
    let refused = two.and(three).unwrap_err();
    assert!(refused.is_missing(), "{refused}");
    assert_eq!(it.db.nodes().await.unwrap().len(), 2);
    join_token(&it.db, 2, 1).await;
    assert!(it.db.enrol(&enrolment("web-4", 2), Time(100), &[]).await.unwrap_err().is_missing(), "expired");
    assert_eq!(it.db.forget_dead_join_tokens(Time(100)).await.unwrap(), 2);
}

async fn a_removed_node_is_revoked_and_gives_its_name_back(it: TestDb) {
    join_token(&it.db, 1, 9).await;
    let node = it.db.enrol(&enrolment("web-1", 1), Time(5), &[]).await.unwrap();
    let renewed = NewCertificate { serial: "renewed".to_owned(), not_after: Time(2000) };
    let ends = async || it.db.certificates_end().await.unwrap().get(&node.id).copied();
    assert_eq!(ends().await, Some(Time(1000)));
    it.db.renew_certificate(node.id, &renewed, Time(6)).await.unwrap();
    assert_eq!(ends().await, Some(Time(2000)));
    assert!(!it.db.is_revoked("serial of web-1").await.unwrap());
    assert!(it.db.is_revoked("never issued").await.unwrap());
    it.db.remove_node(node.id, Time(7), &told("removed"), None).await.unwrap();
    assert_eq!(ends().await, None);
    for serial in ["serial of web-1", "renewed"] {
        assert!(it.db.is_revoked(serial).await.unwrap(), "{serial}");
    }
    assert_eq!(it.db.node(node.id).await.unwrap(), None);
    let late = NewCertificate { serial: "late".to_owned(), not_after: Time(2000) };
    assert!(it.db.renew_certificate(node.id, &late, Time(8)).await.unwrap_err().is_missing());
    assert!(it.db.remove_node(node.id, Time(8), &[], None).await.unwrap_err().is_missing());
    assert!(it.db.node_assignment(node.id).await.unwrap_err().is_missing());
    let mut again = enrolment("web-1", 1);
    again.certificate.serial = "another".to_owned();
    let again = it.db.enrol(&again, Time(9), &[]).await.unwrap();
    assert_eq!(it.db.node_by_name(&again.name).await.unwrap(), Some(again));
    assert_eq!(events_told(&it.db).await, ["removed"]);
}

async fn what_an_agent_says_of_its_host_is_kept(it: TestDb) {
    join_token(&it.db, 1, 1).await;
    let node = it.db.enrol(&enrolment("web-1", 1), Time(5), &[]).await.unwrap();
    let facts = HelloFacts {
        agent_version: "2.0".to_owned(),
        boot_id: "b".to_owned(),
        inventory: Inventory { cpus: 2, memory_bytes: u64::MAX, ..Inventory::default() },
    };
    it.db.record_hello(node.id, &facts, Time(6)).await.unwrap();
    join_token(&it.db, 2, 2).await;
    let other = it.db.enrol(&enrolment("web-2", 2), Time(5), &[]).await.unwrap();
    let silent = it.db.enrol(&enrolment("web-3", 2), Time(5), &[]).await.unwrap();
    it.db.touch_nodes(&[(other.id, Time(8)), (node.id, Time(7))]).await.unwrap();
    let last_seen = async |node| it.db.node(node).await.unwrap().unwrap().last_seen_at;
    assert_eq!(last_seen(other.id).await, Some(Time(8)));
    assert_eq!(last_seen(silent.id).await, None);
    let stored = it.db.node(node.id).await.unwrap().unwrap();
    assert_eq!(stored.inventory, Some(facts.inventory));
    assert_eq!((stored.agent_version.as_str(), stored.last_seen_at), ("2.0", Some(Time(7))));
}
