//! Plans, applies, versions and the watched file, as they are asked for.

use axum::http::StatusCode;
use proto::configuration::{
    Applied, Class, Configuration, Fate, FileState, Origin, Plan, Version, VersionSummary,
};
use proto::page::Page;
use proto::problem::Problem;
use proto::state::Role;
use serde_json::{Value, json};

use super::fleet::enrolled;
use super::{Answer, Bench, Call, says};
use crate::config::Flags;
use crate::db::tests::fixture::{TestDb, on_both_engines};
use crate::db::{AuditEntry, EventFilter, PageRequest};

on_both_engines!(of_two_who_apply_at_once_the_second_is_told_who_was_first);

const ONE: &str = "applications:\n  - name: shop\n    replicas: 2\n    env: [{ key: A, value: s3cret }]\n";

impl Bench {
    async fn plan(&self, yaml: &str) -> Plan {
        let operator = self.token(Role::Operator).await;
        let call = Call::post("/api/v1/configuration/plan", &json!({ "yaml": yaml })).bearer(&operator);
        let answer = self.send(call).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.json()
    }

    async fn ask_to_apply(&self, body: &Value) -> Answer {
        let admin = self.token(Role::Admin).await;
        self.send(Call::post("/api/v1/configuration/apply", body).bearer(&admin)).await
    }

    pub(super) async fn applied(&self, body: Value) -> Applied {
        let answer = self.ask_to_apply(&body).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.json()
    }

    async fn configuration(&self) -> Configuration {
        let viewer = self.token(Role::Viewer).await;
        self.send(Call::get("/api/v1/configuration").bearer(&viewer)).await.json()
    }

    fn write(&self, yaml: &str) {
        std::fs::write(self.config.path(), yaml).unwrap();
    }

    async fn audited(&self) -> Vec<AuditEntry> {
        self.api.db.audit(PageRequest::newest(100)).await.unwrap().items
    }

    /// Texts of events of a kind, oldest first.
    async fn told(&self, kind: &str) -> Vec<String> {
        let filter = EventFilter { kind: Some(kind.to_owned()), ..EventFilter::default() };
        let page = self.api.db.events(&filter, PageRequest::newest(100)).await.unwrap();
        page.items.into_iter().rev().map(|it| it.event.text).collect()
    }
}

#[tokio::test]
async fn a_plan_says_what_would_change_and_changes_nothing() {
    let bench = Bench::new().await;
    let plan = bench.plan(ONE).await;
    assert_eq!((plan.base, plan.difference.applications[0].fate), (0, Fate::Added));
    assert!(bench.api.db.applications().await.unwrap().is_empty());
    bench.applied(json!({ "yaml": ONE, "base": 0 })).await;

    let other = "port: 5003\napplications:\n  - name: shop\n    replicas: 3\n    language: gleam\n    \
                 replica_ports: [{ key: PORT, base: 4000 }]\n    env: [{ key: A, value: 0ther }]\n";
    let plan = bench.plan(other).await;
    let said: Vec<String> =
        plan.difference.applications[0].changes.iter().map(|it| format!("{it} [{}]", it.class)).collect();
    assert_eq!(
        said,
        [
            "env[A] changed [next_deploy]",
            "language elixir → gleam [next_deploy]",
            "replica_ports[PORT].base 4000 (was not set) [full_deploy]",
            "replicas 2 → 3 [immediate]",
        ]
    );
    let own: Vec<String> = plan.difference.control_plane.iter().map(ToString::to_string).collect();
    assert_eq!((plan.base, own), (1, vec!["port 5001 → 5003".to_owned()]));
    assert!(!serde_json::to_string(&plan).unwrap().contains("0ther"));
    assert_eq!(bench.plan("applications: []\n").await.difference.applications[0].fate, Fate::Removed);
    assert!(bench.plan(ONE).await.difference.is_empty());
}

#[tokio::test]
async fn every_fault_is_named_with_its_place_and_nothing_is_applied() {
    let bench = Bench::new().await;
    let faulty = "prot: 5001\napplications:\n  - name: shop\n    replicas: many\n";
    for (path, body) in [("plan", json!({ "yaml": faulty })), ("apply", json!({ "yaml": faulty, "base": 0 }))]
    {
        let admin = bench.token(Role::Admin).await;
        let answer =
            bench.send(Call::post(&format!("/api/v1/configuration/{path}"), &body).bearer(&admin)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (422, "invalid-input".to_owned()));
        let problem: Problem = answer.json();
        let places: Vec<(&str, &str)> =
            problem.errors.iter().map(|it| (it.path.as_str(), &it.message[..18])).collect();
        assert_eq!(
            places,
            [("prot", "line 1, column 1: "), ("applications[shop].replicas", "line 4, column 15:")]
        );
    }
    assert_eq!(bench.api.db.newest_configuration().await.unwrap(), None);
    for body in [
        json!({ "base": 0 }),
        json!({ "yaml": "", "pending": true, "base": 0 }),
        json!({ "yaml": "", "restore": 1, "base": 0 }),
        json!({ "yaml": "" }),
        json!({ "yaml": "", "base": 0, "bse": 1 }),
    ] {
        assert_eq!(bench.ask_to_apply(&body).await.code(), "invalid-input", "{body}");
    }
}

#[tokio::test]
async fn what_is_applied_is_in_force_remembered_and_told() {
    let bench = Bench::new().await;
    let node = enrolled(&bench, "web-1").await;
    let mut changes = bench.api.configuration.changes();
    let applied = bench.applied(json!({ "yaml": ONE, "base": 0 })).await;
    assert_eq!((applied.number, applied.sentence.as_str()), (1, "Version 1 is in force: 1 change."));
    assert_eq!(bench.api.db.applications().await.unwrap()[0].spec.replicas.get(), 2);
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    // Limits of hosts concern every node.
    let watched = format!("monitoring: [{{ type: memory }}]\n{ONE}");
    bench.applied(json!({ "yaml": watched, "base": 1 })).await;
    assert!(changes.has_changed().unwrap());
    assert_eq!(bench.concerned.0.lock().unwrap().last().unwrap().iter().collect::<Vec<_>>(), [&node]);

    let audited = bench.audited().await;
    assert_eq!(
        (audited[0].what.as_str(), audited[0].object.as_str(), audited[0].detail.as_str()),
        ("configuration.apply", "version 2", "3 changes (api)")
    );
    let told = bench.told("configuration_applied").await;
    assert!(told[0].ends_with("applied version 1 of the configuration (api): 1 change"), "{told:?}");
    // The same text again is no other version.
    let again = bench.applied(json!({ "yaml": watched, "base": 2 })).await;
    assert_eq!((again.number, again.sentence.as_str()), (2, "Version 2 is in force already."));
    assert_eq!(bench.audited().await.len(), audited.len());
}

async fn of_two_who_apply_at_once_the_second_is_told_who_was_first(db: TestDb) {
    let bench = Bench::on(db, Flags::default(), |_| ()).await;
    bench.applied(json!({ "yaml": ONE, "base": 0 })).await;
    let texts = ["a", "b"].map(|name| format!("{ONE}  - name: {name}\n"));
    let bodies = texts.map(|yaml| json!({ "yaml": yaml, "base": 1 }));
    let (a, b) = tokio::join!(bench.ask_to_apply(&bodies[0]), bench.ask_to_apply(&bodies[1]));
    let (won, lost) = if a.status == StatusCode::OK { (a, b) } else { (b, a) };
    assert_eq!((won.status.as_u16(), lost.code()), (200, "conflict".to_owned()), "{won:?} {lost:?}");
    let problem: Problem = lost.json();
    let expected = "nothing was applied: since version 1, token:admin-";
    assert!(problem.detail.starts_with(expected), "{}", problem.detail);
    assert!(problem.detail.contains(" applied version 2 at 20"), "{}", problem.detail);
    assert!(problem.detail.ends_with("(api: 1 change); plan again"), "{}", problem.detail);
    assert_eq!(bench.api.db.applications().await.unwrap().len(), 2, "nothing of the other one");
    // Also long after.
    let late = bench.ask_to_apply(&json!({ "yaml": "port: 5003\n", "base": 1 })).await;
    assert_eq!(late.code(), "conflict");
    let ahead = bench.ask_to_apply(&json!({ "yaml": "port: 5003\n", "base": 7 })).await;
    assert!(ahead.text().contains("there is no version 7"), "{}", ahead.text());
}

#[tokio::test]
async fn an_earlier_version_is_restored_as_a_new_one() {
    let bench = Bench::new().await;
    bench.applied(json!({ "yaml": ONE, "base": 0 })).await;
    bench.applied(json!({ "yaml": "applications: []\n", "base": 1 })).await;
    assert!(!bench.api.db.applications().await.unwrap()[0].configured);
    let applied = bench.applied(json!({ "restore": 1, "base": 2 })).await;
    assert_eq!((applied.number, applied.difference.applications[0].fate), (3, Fate::Returned));
    assert!(bench.api.db.applications().await.unwrap()[0].configured);
    assert_eq!(bench.audited().await[0].what, "configuration.restore");
    let told = bench.told("configuration_applied").await;
    assert!(told[2].contains("restored version 1 of the configuration as version 3"), "{told:?}");
    assert_eq!(bench.ask_to_apply(&json!({ "restore": 9, "base": 3 })).await.code(), "not-found");

    let viewer = bench.token(Role::Viewer).await;
    let list = bench.send(Call::get("/api/v1/configuration/versions?limit=2").bearer(&viewer)).await;
    let page: Page<VersionSummary> = list.json();
    let shown: Vec<_> = page.items.iter().map(|it| (it.number, it.origin)).collect();
    assert_eq!(shown, [(3, Origin::Restore(1)), (2, Origin::Api)]);
    assert_eq!(page.next.as_deref(), Some("2"));
}

#[tokio::test]
async fn secrets_of_a_version_are_for_those_who_may_apply_one() {
    let bench = Bench::new().await;
    bench.applied(json!({ "yaml": ONE, "base": 0 })).await;
    for (role, masked) in [(Role::Viewer, true), (Role::Operator, true), (Role::Admin, false)] {
        let token = bench.token(role).await;
        let answer = bench.send(Call::get("/api/v1/configuration/versions/1").bearer(&token)).await;
        let version: Version = answer.json();
        assert_eq!((version.masked, version.yaml.contains("s3cret")), (masked, !masked), "{role}");
        assert_eq!(version.yaml == ONE, !masked);
        assert!(version.yaml.contains("replicas: 2"));
        let missing = bench.send(Call::get("/api/v1/configuration/versions/7").bearer(&token)).await;
        assert_eq!(missing.code(), "not-found");
    }
    // Nor does it lie readable where it is kept.
    let stored = bench.api.db.newest_configuration().await.unwrap().unwrap();
    assert!(!stored.text.windows(6).any(|it| it == b"s3cret"));
}

#[tokio::test]
async fn what_is_read_before_the_database_changes_in_the_file_alone() {
    let bench = Bench::new().await;
    let elsewhere = "database_url: postgres://me:s3cret@db/x\n";
    let answer = bench.ask_to_apply(&json!({ "yaml": elsewhere, "base": 0 })).await;
    let problem: Problem = answer.json();
    assert_eq!((answer.status.as_u16(), problem.errors[0].path.as_str()), (422, "database_url"));
    assert!(!answer.text().contains("s3cret"));
    bench.write(elsewhere);
    let applied = bench.applied(json!({ "pending": true, "base": 0 })).await;
    assert_eq!(applied.number, 1);
}

#[tokio::test]
async fn a_certificate_that_the_next_start_would_refuse_is_refused_now() {
    let bench = Bench::new().await;
    let yaml = "tls: { certificate: /nowhere/a.pem, key: /nowhere/b.pem }\n";
    let answer = bench.ask_to_apply(&json!({ "yaml": yaml, "base": 0 })).await;
    let problem: Problem = answer.json();
    assert_eq!((answer.status.as_u16(), problem.errors[0].path.as_str()), (422, "tls"));
}

/// Also one that was there when somebody applied it, whatever the file says.
#[tokio::test]
async fn no_restart_is_begun_for_which_the_certificate_of_what_was_applied_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("a.pem"), folder.path().join("b.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let bench = Bench::new().await;
    bench.write(ONE);
    bench.applied(json!({ "pending": true, "base": 0 })).await;
    let here = folder.path().display();
    let yaml = format!("tls: {{ certificate: {here}/a.pem, key: {here}/b.pem }}\n{ONE}");
    bench.applied(json!({ "yaml": yaml, "base": 1 })).await;
    let token = bench.token(Role::Admin).await;
    let restart = || bench.send(Call::post("/api/v1/control-plane/restart", &json!({})).bearer(&token));

    std::fs::remove_file(&key).unwrap();
    let refused = restart().await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "conflict".to_owned()), "{}", refused.text());
    assert!(refused.text().contains("b.pem"), "{}", refused.text());
    assert!(!bench.api.begin_anew.is_cancelled());
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();

    // Nor one for which what is sealed would not open any more.
    let secrets = folder.path().join("secrets.json");
    let another = json!({ "DEPLOYEX_SECRET_KEY_BASE": "another key of the tests ".repeat(4) });
    std::fs::write(&secrets, another.to_string()).unwrap();
    bench.write(&format!("secrets_adapter: file\nsecrets_path: {}\n{ONE}", secrets.display()));
    let refused = restart().await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "conflict".to_owned()), "{}", refused.text());
    bench.write(ONE);
    assert_eq!(restart().await.status.as_u16(), 202);
    assert!(bench.api.begin_anew.is_cancelled());
}

#[tokio::test]
async fn no_restart_is_begun_for_which_the_program_that_lies_there_would_not_come_up() {
    let bench = Bench::new().await;
    let token = bench.token(Role::Admin).await;
    let restart = || bench.send(Call::post("/api/v1/control-plane/restart", &json!({})).bearer(&token));
    for (text, words) in [
        ("knock knock", "does not say that it is deployex"),
        ("deployex 0.0.9\nknows database change m20260101_000001_first", "which is too old for the database"),
    ] {
        says(&bench.program, text);
        let refused = restart().await;
        assert_eq!(
            (refused.status.as_u16(), refused.code()),
            (409, "conflict".to_owned()),
            "{}",
            refused.text()
        );
        assert!(refused.text().contains(words), "{}", refused.text());
    }
    std::fs::remove_file(&bench.program).unwrap();
    let refused = restart().await;
    assert!(refused.text().contains("cannot be run"), "{}", refused.text());
    assert!(!bench.api.begin_anew.is_cancelled());
    says(&bench.program, &format!("deployex {}", crate::next_start::long_version()));
    assert_eq!(restart().await.status.as_u16(), 202, "this version comes back");
}

#[tokio::test]
async fn what_needs_a_restart_is_said_until_there_was_one() {
    let bench = Bench::new().await;
    bench.applied(json!({ "yaml": "", "base": 0 })).await;
    let applied = bench.applied(json!({ "yaml": "port: 5003\n", "base": 1 })).await;
    assert_eq!(
        applied.sentence,
        "Version 2 is in force: 1 change. port waits for a restart of the control plane."
    );
    // An unrelated change says it again.
    let applied = bench.applied(json!({ "yaml": format!("port: 5003\n{ONE}"), "base": 2 })).await;
    let waits: Vec<String> = applied.awaits_restart.iter().map(ToString::to_string).collect();
    assert_eq!(waits, ["port 5001 → 5003"]);
    let shown = bench.configuration().await;
    assert_eq!(shown.awaits_restart, applied.awaits_restart);
    assert_eq!(shown.awaits_restart[0].class, Class::Restart);
    assert_eq!(shown.waiting().last().unwrap(), "port waits for a restart of the control plane");
    // Taken back, nothing waits.
    let applied = bench.applied(json!({ "yaml": ONE, "base": 3 })).await;
    assert_eq!(applied.awaits_restart, []);
}

#[tokio::test]
async fn a_changed_file_is_pending_with_its_difference_until_it_is_applied() {
    let bench = Bench::new().await;
    bench.write(ONE);
    let applied = bench.applied(json!({ "pending": true, "base": 0 })).await;
    assert_eq!(applied.number, 1);
    let shown = bench.configuration().await;
    assert_eq!(shown.file.as_ref().unwrap().state, FileState::InForce);
    assert_eq!((shown.in_force.as_ref().unwrap().origin, shown.waiting().len()), (Origin::File, 0));
    assert_eq!(bench.told("config_changed").await.len(), 1, "it had changed");

    bench.write(&ONE.replace("replicas: 2", "replicas: 4"));
    let FileState::Pending { plan } = bench.configuration().await.file.unwrap().state else { panic!() };
    assert_eq!(plan.difference.applications[0].changes[0].to_string(), "replicas 2 → 4");
    for _ in 0..3 {
        bench.api.configuration.look().await;
    }
    let told = bench.told("config_changed").await;
    assert_eq!(told.len(), 2, "once for each change: {told:?}");
    assert!(told[1].ends_with("has changed: 1 change; `deployex apply` applies it"), "{told:?}");
    assert_eq!(bench.api.db.applications().await.unwrap()[0].spec.replicas.get(), 2);

    // What is applied is what was seen.
    bench.write(&ONE.replace("replicas: 2", "replicas: 5"));
    bench.api.configuration.look().await;
    let body = json!({ "pending": true, "base": 1, "sha256": plan.sha256 });
    assert_eq!(bench.ask_to_apply(&body).await.code(), "conflict");
    bench.applied(json!({ "pending": true, "base": 1 })).await;
    assert_eq!(bench.api.db.applications().await.unwrap()[0].spec.replicas.get(), 5);
}

#[tokio::test]
async fn a_file_with_faults_or_none_disturbs_nothing_and_is_shown() {
    let bench = Bench::new().await;
    bench.write(ONE);
    bench.applied(json!({ "pending": true, "base": 0 })).await;
    bench.write("applications: [{ name: shop, replicas: many }]\n");
    let shown = bench.configuration().await;
    let FileState::Faulty { faults } = &shown.file.as_ref().unwrap().state else { panic!("{shown:?}") };
    assert!(faults[0].message.starts_with("line 1, column 40: found \"many\""), "{faults:?}");
    assert!(shown.waiting()[0].ends_with("has changed and cannot be applied: it has 1 fault"));
    assert_eq!(shown.in_force.unwrap().number, 1);
    let told = bench.told("config_changed").await;
    assert!(
        told[1].contains("cannot be applied, it has faults; the first: applications[shop].replicas"),
        "{told:?}"
    );
    assert_eq!(bench.ask_to_apply(&json!({ "pending": true, "base": 1 })).await.status.as_u16(), 422);

    std::fs::remove_file(bench.config.path()).unwrap();
    let shown = bench.configuration().await;
    assert!(matches!(shown.file.unwrap().state, FileState::Unreadable { .. }));
    assert_eq!(bench.ask_to_apply(&json!({ "pending": true, "base": 1 })).await.code(), "conflict");
    bench.write(ONE);
    assert_eq!(bench.configuration().await.file.unwrap().state, FileState::InForce);
    assert_eq!(bench.told("config_changed").await.len(), 2, "it is as it was");
}

#[tokio::test]
async fn a_file_that_did_not_change_is_overridden_by_who_applied_another_one() {
    let bench = Bench::new().await;
    bench.write(ONE);
    bench.applied(json!({ "pending": true, "base": 0 })).await;
    bench.applied(json!({ "yaml": "applications: []\n", "base": 1 })).await;
    let shown = bench.configuration().await;
    let FileState::Overridden { plan } = &shown.file.as_ref().unwrap().state else { panic!("{shown:?}") };
    assert_eq!(plan.difference.applications[0].fate, Fate::Returned);
    assert!(shown.waiting()[0].contains("is not what is in force: token:admin-"), "{:?}", shown.waiting());
    // The file is applied again, if somebody wants it.
    bench.applied(json!({ "pending": true, "base": 2 })).await;
    assert_eq!(bench.configuration().await.file.unwrap().state, FileState::InForce);
}

#[tokio::test]
async fn a_changed_file_is_applied_by_itself_where_that_was_asked_for() {
    let flags = Flags { auto_apply: true, ..Flags::default() };
    let bench = Bench::on(TestDb::sqlite().await, flags, |_| ()).await;
    bench.write(ONE);
    let shown = bench.configuration().await;
    let version = shown.in_force.unwrap();
    assert_eq!((version.number, version.by.as_str(), version.origin), (1, "auto-apply", Origin::File));
    assert_eq!(shown.file.unwrap().state, FileState::InForce);
    // What somebody applied meanwhile is not undone by a file that did not change.
    bench.applied(json!({ "yaml": "applications: []\n", "base": 1 })).await;
    assert!(matches!(bench.configuration().await.file.unwrap().state, FileState::Overridden { .. }));
    bench.write("applications: [{ name: shop, replicas: many }]\n");
    let shown = bench.configuration().await;
    assert!(matches!(shown.file.unwrap().state, FileState::Faulty { .. }));
    assert_eq!(shown.in_force.unwrap().number, 2);
    bench.write(&ONE.replace("replicas: 2", "replicas: 3"));
    assert_eq!(bench.configuration().await.in_force.unwrap().number, 3);
}

#[tokio::test]
async fn a_large_configuration_has_room() {
    let bench = Bench::new().await;
    let app = |number: u32| {
        let comment = "x".repeat(100);
        format!(
            "  - name: app-{number}\n    replicas: 1\n    run_as: {{ user: \"deployex\" }}\n    # {comment}\n"
        )
    };
    let applications: Vec<String> = (0..3_000).map(app).collect();
    let yaml = format!("applications:\n{}", applications.concat());
    assert!(yaml.len() > 400 << 10);
    assert_eq!(bench.plan(&yaml).await.difference.applications.len(), 3_000);
    let too_large = format!("# {}\n", "x".repeat(4 << 20));
    let admin = bench.token(Role::Admin).await;
    let call = Call::post("/api/v1/configuration/plan", &json!({ "yaml": too_large })).bearer(&admin);
    assert_eq!(bench.send(call).await.code(), "too-large");
    assert_eq!(bench.api.db.newest_configuration().await.unwrap(), None);
}

impl Bench {
    async fn scaled(&self, role: Role, app: &str, count: u64) -> Answer {
        let token = self.token(role).await;
        let path = format!("/api/v1/applications/{app}/scale");
        self.send(Call::post(&path, &json!({ "count": count })).bearer(&token)).await
    }
}

#[tokio::test]
async fn another_number_of_replicas_is_a_new_version_that_says_nothing_else() {
    let bench = Bench::new().await;
    let yaml = "# ours\napplications:\n  - name: shop # the shop\n    replicas: 2\n  - name: spread\n    spread: 3\n";
    bench.applied(json!({ "yaml": yaml, "base": 0 })).await;
    let answer = bench.scaled(Role::Operator, "shop", 4).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let applied: Applied = answer.json();
    let changes: Vec<String> =
        applied.difference.applications.iter().flat_map(|it| &it.changes).map(ToString::to_string).collect();
    assert_eq!((applied.number, changes), (2, vec!["replicas 2 → 4".to_owned()]));
    assert_eq!(bench.scaled(Role::Operator, "spread", 5).await.status, StatusCode::OK);
    let admin = bench.token(Role::Admin).await;
    let version: Version =
        bench.send(Call::get("/api/v1/configuration/versions/3").bearer(&admin)).await.json();
    assert_eq!(version.yaml, yaml.replace("replicas: 2", "replicas: 4").replace("spread: 3", "spread: 5"));
    assert!(bench.audited().await.iter().any(|it| it.object == "version 3"));
    // The same number once more is no new version.
    let again: Applied = bench.scaled(Role::Operator, "shop", 4).await.json();
    assert_eq!((again.number, again.difference.applications.len()), (3, 0));
}

#[tokio::test]
async fn a_number_of_replicas_that_cannot_be_is_refused_and_changes_nothing() {
    let bench = Bench::new().await;
    bench.applied(json!({ "yaml": ONE, "base": 0 })).await;
    assert_eq!(bench.scaled(Role::Viewer, "shop", 3).await.status, StatusCode::FORBIDDEN);
    assert_eq!(bench.scaled(Role::Operator, "nobody", 3).await.status, StatusCode::NOT_FOUND);
    for count in [0, 65_535, 70_000] {
        let answer = bench.scaled(Role::Operator, "shop", count).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{count}: {answer:?}");
    }
    let twice = "applications:\n  - name: shop\n    replicas: &n 2\n  - name: other\n    replicas: *n\n";
    bench.applied(json!({ "yaml": twice, "base": 1 })).await;
    let answer = bench.scaled(Role::Operator, "shop", 3).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::CONFLICT, "conflict"), "{answer:?}");
    assert_eq!(bench.configuration().await.in_force.map(|it| it.number), Some(2));
}
