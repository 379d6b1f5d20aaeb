//! Puts a configuration in force, at a start or while everything runs: what differs from what is stored, then all of it in one
//! transaction, together with the version of the configuration that says so.
//!
//! [`plan`] is pure. The configuration owns the applications that it names; those that were made through the API are left alone
//! until it names them.

mod events;
pub mod own;
mod secrets;

use std::collections::{BTreeMap, BTreeSet};

use proto::configuration::{ApplicationChange, Difference, Fate};
use proto::ids::{AppName, NodeId, RestartId};
use uuid::Uuid;

use self::events::{event, secret_missing};
use self::secrets::{Fingerprints, fingerprints};
pub use self::secrets::{Secrets, Source};
use super::Config;
use super::changes::{Change, Class, between};
use crate::clock::Time;
use crate::db::{
    Application, ApplicationsDiff, AuditEntry, Db, DbError, NewApplication, NewEvent, NewVersion,
    Source as Owner,
};
use crate::fleet::RestartWish;
use crate::spec::AppSpec;
use crate::spec::monitoring::HostMonitoring;
use crate::vault::VaultError;

/// Where the control plane's own settings are remembered as they were put in force last.
const OWN: &str = "configuration.control_plane";

/// Where it is remembered of each application what its secrets were, as fingerprints.
const SECRETS: &str = "configuration.secrets";

/// What is to be done to the applications.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub put: Vec<AppSpec>,
    /// No longer named: their replicas are withdrawn, their history stays.
    pub dropped: Vec<AppName>,
    /// Their secrets are others now, or can be had again.
    pub retold: Vec<AppName>,
    /// Agents cannot be told of them since this start, and why.
    pub untold: BTreeMap<AppName, String>,
    pub changes: BTreeMap<AppName, What>,
    /// Their new ports are among those that their replicas have now, so that these are in each other's way.
    pub entangled: BTreeSet<AppName>,
}

#[derive(Debug, PartialEq)]
pub enum What {
    Added,
    /// It had been removed before; its history is still there.
    Returned,
    Changed(Vec<Change>),
    /// Through the API until now; the configuration owns it from here on.
    TakenOver(Vec<Change>),
    Removed,
    /// Nothing that the file says, but a secret that it names, or the cookie.
    Secrets,
    /// All of its secrets can be had again; whether they are others, nobody remembers.
    SecretsFound,
}

/// Why a configuration was read and not put in force.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("cannot store the configuration")]
    Store(#[from] DbError),
    #[error("cannot make a cookie for {app}")]
    Cookie {
        app: AppName,
        #[source]
        source: Source,
    },
    #[error("cannot write the control plane's settings as JSON")]
    Json(#[from] serde_json::Error),
    #[error("its text cannot be sealed")]
    Vault(#[from] VaultError),
}

impl ApplyError {
    /// Somebody else put another configuration in force meanwhile. Nothing was stored.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_conflict())
    }
}

/// What it takes to have `config` in force where `stored` is.
pub fn plan(stored: &[Application], config: &Config) -> Plan {
    let mut plan = Plan::default();
    if !config.names_applications {
        return plan;
    }
    let known: BTreeMap<&AppName, &Application> = stored.iter().map(|it| (&it.spec.name, it)).collect();
    for spec in &config.applications {
        let what = match known.get(&spec.name) {
            None => What::Added,
            Some(known) if !known.configured => What::Returned,
            Some(known) if known.source == Owner::Api => What::TakenOver(between(&known.spec, spec)),
            Some(known) if known.spec == *spec => continue,
            Some(known) => What::Changed(between(&known.spec, spec)),
        };
        if known.get(&spec.name).is_some_and(|known| known.configured && entangled(&known.spec, spec)) {
            plan.entangled.insert(spec.name.clone());
        }
        plan.put.push(spec.clone());
        plan.changes.insert(spec.name.clone(), what);
    }
    let named = |app: &AppName| config.applications.iter().any(|it| it.name == *app);
    for app in stored.iter().filter(|it| it.configured && it.source == Owner::Yaml && !named(&it.spec.name)) {
        plan.dropped.push(app.spec.name.clone());
        plan.changes.insert(app.spec.name.clone(), What::Removed);
    }
    plan
}

/// One slot's new port would be another's old one, while they are replaced one by one.
fn entangled(before: &AppSpec, after: &AppSpec) -> bool {
    // One slot more than the replicas is used meanwhile.
    let range = |spec: &AppSpec, base: u16| {
        (u32::from(base), u32::from(base) + u32::from(spec.most_per_node().get()))
    };
    after.ports.iter().any(|new| {
        let moved = before.ports.iter().filter(|old| !(old.key == new.key && old.base == new.base));
        let (first, last) = range(after, new.base);
        moved
            .map(|old| range(before, old.base))
            .any(|(old_first, old_last)| first <= old_last && old_first <= last)
    })
}

/// Said of each of [`Plan::entangled`].
pub fn entangled_notice(app: &AppName) -> String {
    format!(
        "{app}: its new ports overlap those that its replicas have now, so nothing is replaced for them; choose ports that are \
         free of each other"
    )
}

impl Plan {
    /// As it is shown. What a secret does is no part of a configuration.
    fn applications(&self) -> Vec<ApplicationChange> {
        let shown = |(name, what): (&AppName, &What)| {
            let (fate, changes) = match what {
                What::Added => (Fate::Added, Vec::new()),
                What::Returned => (Fate::Returned, Vec::new()),
                What::TakenOver(changes) => (Fate::TakenOver, changes.clone()),
                What::Changed(changes) => (Fate::Changed, changes.clone()),
                What::Removed => (Fate::Removed, Vec::new()),
                What::Secrets | What::SecretsFound => return None,
            };
            Some(ApplicationChange { name: name.clone(), fate, changes })
        };
        self.changes.iter().filter_map(shown).collect()
    }

    /// Applications of which every replica has to be replaced.
    fn replaced(&self) -> impl Iterator<Item = &AppName> {
        let is_replaced = |what: &What| match what {
            What::Changed(changes) | What::TakenOver(changes) => {
                changes.iter().any(|it| it.class == Class::FullDeploy)
            }
            _ => false,
        };
        let replaced = self.changes.iter().filter(move |(_, what)| is_replaced(what)).map(|(app, _)| app);
        replaced.filter(|app| !self.entangled.contains(*app))
    }

    /// One event for each application, naming each changed key, and one for each that lacks a secret.
    pub fn events(&self, now: Time) -> Vec<NewEvent> {
        let told = |(app, what): (&AppName, &What)| event(app, what, self.entangled.contains(app), now);
        let changes = self.changes.iter().map(told);
        changes.chain(self.untold.iter().map(|(app, why)| secret_missing(app, why, now))).collect()
    }
}

/// On whose word a configuration is put in force, and when.
#[derive(Debug)]
pub struct Wish {
    /// `start` where nobody asked for it.
    pub by: String,
    /// The control plane starts with it: what is read at a start counts already.
    pub at_start: bool,
    pub audit: Option<AuditEntry>,
    /// Said before what it changes.
    pub headline: Option<NewEvent>,
    /// By the wall clock.
    pub now: Time,
    /// By the clock that plans go by.
    pub planned_at: Time,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Done {
    pub plan: Plan,
    /// Who is to be told: their generations were raised.
    pub nodes: BTreeSet<NodeId>,
}

/// What `config` would change, and which applications it would [entangle](Plan::entangled).
pub async fn difference(config: &Config, db: &Db) -> Result<(Difference, BTreeSet<AppName>), DbError> {
    let plan = plan(&db.applications().await?, config);
    let before = db.setting(OWN).await?;
    let control_plane = own::between(before.as_deref(), &own::sheet(config));
    Ok((Difference { applications: plan.applications(), control_plane }, plan.entangled))
}

/// What was put in force since the control plane started with `started` and waits for its next start.
pub async fn awaits_restart(started: &own::Sheet, db: &Db) -> Result<Vec<Change>, DbError> {
    let in_force = db.setting(OWN).await?;
    let mut changes = own::since(started, in_force.as_deref());
    changes.retain(|it| it.class == Class::Restart);
    Ok(changes)
}

/// Puts `config` in force. At a start no agent is connected yet: each gets what changed for it when it is. `version`: where it
/// is another configuration than the one in force.
pub async fn apply(
    config: &Config,
    db: &Db,
    secrets: &dyn Secrets,
    version: Option<NewVersion>,
    wish: Wish,
) -> Result<Done, ApplyError> {
    let Wish { by, at_start, audit, headline, now, planned_at } = wish;
    let stored = db.applications().await?;
    let mut plan = plan(&stored, config);
    let put = put(&plan.put, &stored, secrets)?;
    let before = db.setting(SECRETS).await?;
    let before: Fingerprints = before.and_then(|it| serde_json::from_str(&it).ok()).unwrap_or_default();
    let fingerprints = fingerprints(&stored, &plan.dropped, &put, secrets);
    plan.tell_anew(&before, &fingerprints);

    let mut events: Vec<NewEvent> = headline.into_iter().chain(plan.events(now)).collect();
    let own = own::sheet(config);
    let own_before = db.setting(OWN).await?;
    events.extend(own::event(&own::between(own_before.as_deref(), &own), at_start, now));
    let mut remembered = Vec::new();
    let own = serde_json::to_string(&own)?;
    if own_before.as_ref() != Some(&own) {
        remembered.push((OWN, own));
    }
    if before != fingerprints {
        remembered.push((SECRETS, serde_json::to_string(&fingerprints)?));
    }
    let monitoring = serde_json::to_string(&config.monitoring)?;
    let every_node = db.setting(HostMonitoring::SETTING).await?.as_ref() != Some(&monitoring);
    if every_node {
        remembered.push((HostMonitoring::SETTING, monitoring));
    }
    let restart = |app: &AppName| {
        let id = RestartId(Uuid::now_v7());
        (
            app.clone(),
            RestartWish {
                id,
                generation: 0,
                node: None,
                slot: None,
                by: by.clone(),
                because: None,
                at: planned_at,
            },
        )
    };
    let restarts: Vec<_> = plan.replaced().map(restart).collect();
    // A start is nobody's word.
    for event in events.iter_mut().filter(|_| !at_start) {
        event.data.insert("by".to_owned(), by.clone().into());
    }
    let mut done = Done { plan, nodes: BTreeSet::new() };
    let is_news = done.plan != Plan::default() || !events.is_empty() || !remembered.is_empty();
    if is_news || version.is_some() || audit.is_some() {
        let (dropped, retold) = (done.plan.dropped.clone(), done.plan.retold.clone());
        let diff = ApplicationsDiff {
            put,
            dropped,
            retold,
            every_node,
            remembered,
            version,
            restarts,
            events,
            audit,
        };
        done.nodes = db.put_applications(diff, now).await?;
    }
    Ok(done)
}

fn put(
    specs: &[AppSpec],
    stored: &[Application],
    secrets: &dyn Secrets,
) -> Result<Vec<NewApplication>, ApplyError> {
    let new = |spec: &AppSpec| {
        let cookie = match stored.iter().find(|it| it.spec.name == spec.name) {
            Some(known) => known.cookie.clone(),
            None => secrets
                .new_cookie(&spec.name)
                .map_err(|source| ApplyError::Cookie { app: spec.name.clone(), source })?,
        };
        Ok(NewApplication { spec: spec.clone(), source: Owner::Yaml, cookie })
    };
    specs.iter().map(new).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Flags;
    use crate::db::EventFilter;
    use crate::db::PageRequest;

    fn config(yaml: &str) -> Config {
        let file = Some((Path::new("deployex.yaml"), yaml.as_bytes()));
        Config::read(file, &Flags::default(), &BTreeMap::new()).unwrap()
    }

    async fn database() -> (Db, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("deployex.db").display());
        (Db::open(&url).await.unwrap(), folder)
    }

    /// Secrets that are all the same word.
    struct Word(&'static str);

    impl Secrets for Word {
        fn new_cookie(&self, app: &AppName) -> Result<Vec<u8>, Source> {
            Ok(app.as_str().as_bytes().to_vec())
        }

        fn fingerprint(&self, _: &AppSpec, cookie: &[u8]) -> Result<String, String> {
            let known = !self.0.is_empty();
            known.then(|| format!("{} {}", self.0, String::from_utf8_lossy(cookie))).ok_or("gone".to_owned())
        }
    }

    fn start(at: u64) -> Wish {
        let now = Time(at);
        Wish { by: "start".to_owned(), at_start: true, audit: None, headline: None, now, planned_at: now }
    }

    async fn applied(db: &Db, config: &Config, at: u64) -> Plan {
        apply(config, db, &Word("same"), None, start(at)).await.unwrap().plan
    }

    /// The texts of all events, oldest first.
    async fn said(db: &Db) -> Vec<String> {
        let page = db.events(&EventFilter::default(), PageRequest::newest(100)).await.unwrap();
        page.items.into_iter().rev().map(|it| it.event.text).collect()
    }

    const TWO: &str = "applications: [{ name: one, replicas: 2 }, { name: two }]\n";

    #[tokio::test]
    async fn the_first_start_stores_everything_and_the_second_changes_nothing() {
        let (db, _folder) = database().await;
        applied(&db, &config(TWO), 1).await;
        let stored = db.applications().await.unwrap();
        assert_eq!(stored.len(), 2);
        assert_eq!((stored[0].spec.replicas.get(), stored[0].cookie.as_slice()), (2, b"one".as_slice()));
        let updated_at = stored[0].updated_at;

        assert_eq!(applied(&db, &config(TWO), 2).await, Plan::default());
        assert_eq!(db.applications().await.unwrap()[0].updated_at, updated_at);
        assert_eq!(
            said(&db).await,
            [
                "the configuration names one for the first time",
                "the configuration names two for the first time"
            ]
        );
    }

    #[tokio::test]
    async fn other_limits_of_hosts_are_told_to_every_node_without_touching_an_application() {
        let (db, _folder) = database().await;
        applied(&db, &config(TWO), 1).await;
        let before = db.applications().await.unwrap();
        let watched = format!("{TWO}monitoring: [{{ type: memory, restart_threshold_percent: 95 }}]\n");
        applied(&db, &config(&watched), 2).await;
        assert_eq!(db.applications().await.unwrap(), before);
        let stored = db.setting(HostMonitoring::SETTING).await.unwrap().unwrap();
        assert_eq!(serde_json::from_str::<HostMonitoring>(&stored).unwrap(), config(&watched).monitoring);
        assert_eq!(
            said(&db).await.last().unwrap(),
            "the control plane's configuration changed: monitoring[memory].cooldown_ms 300000 (was not set); \
             monitoring[memory].restart_threshold_percent 95 (was not set); \
             monitoring[memory].warning_threshold_percent 75 (was not set)"
        );
    }

    #[tokio::test]
    async fn an_event_names_each_changed_key_with_when_it_takes_effect() {
        let (db, _folder) = database().await;
        applied(&db, &config(TWO), 1).await;
        let changed = "port: 5003\napplications: [{ name: one, replicas: 5, language: gleam, env: [{ key: A, value: s3cret }] }, { name: two }]\n";
        applied(&db, &config(changed), 2).await;
        let stored = db.applications().await.unwrap();
        assert_eq!((stored[0].spec.replicas.get(), stored[0].cookie.as_slice()), (5, b"one".as_slice()));
        assert_eq!(
            said(&db).await[2..],
            [
                "the configuration of one changed: env[A] added (with the next deployment); \
                 language elixir → gleam (with the next deployment); replicas 2 → 5 (at once)",
                "the control plane's configuration changed: port 5001 → 5003",
            ]
        );
        let page = db
            .events(
                &EventFilter { app: Some("one".parse().unwrap()), ..EventFilter::default() },
                PageRequest::newest(1),
            )
            .await
            .unwrap();
        let fields = serde_json::json!({ "env[A]": "next_deploy", "language": "next_deploy", "replicas": "immediate" });
        assert_eq!(page.items[0].event.data["fields"], fields);
    }

    #[tokio::test]
    async fn an_application_that_is_no_longer_named_is_withdrawn_and_may_come_back() {
        let (db, _folder) = database().await;
        applied(&db, &config(TWO), 1).await;
        applied(&db, &config("applications: [{ name: one, replicas: 2 }]\n"), 2).await;
        let configured = |all: &[Application]| all.iter().map(|it| it.configured).collect::<Vec<_>>();
        assert_eq!(configured(&db.applications().await.unwrap()), [true, false]);
        applied(&db, &config(TWO), 3).await;
        assert_eq!(configured(&db.applications().await.unwrap()), [true, true]);
        assert_eq!(
            said(&db).await[2..],
            [
                "the configuration no longer names two: its replicas are withdrawn",
                "the configuration names two again",
            ]
        );
    }

    #[tokio::test]
    async fn a_start_that_names_no_applications_leaves_them_running() {
        let (db, _folder) = database().await;
        applied(&db, &config(TWO), 1).await;
        for lost in ["", "port: 5003\n", "applications:\n"] {
            let config = config(lost);
            assert_eq!(
                config.notices,
                ["no applications are named: those that were configured before stay as they are"]
            );
            assert_eq!(applied(&db, &config, 2).await, Plan::default(), "{lost:?}");
        }
        assert!(db.applications().await.unwrap().iter().all(|it| it.configured));
        // Said on purpose.
        applied(&db, &config("applications: []\n"), 3).await;
        assert!(db.applications().await.unwrap().iter().all(|it| !it.configured));
    }

    #[tokio::test]
    async fn an_application_of_the_api_is_left_alone_until_the_file_names_it() {
        let (db, _folder) = database().await;
        let spec = config(TWO).applications.remove(1);
        let put = vec![NewApplication { spec, source: Owner::Api, cookie: b"api".to_vec() }];
        db.put_applications(ApplicationsDiff { put, ..ApplicationsDiff::default() }, Time(1)).await.unwrap();
        applied(&db, &config("applications: [{ name: one }]\n"), 2).await;
        assert!(db.applications().await.unwrap().iter().all(|it| it.configured));
        let plan = applied(&db, &config(TWO), 3).await;
        assert_eq!(plan.changes[&"two".parse().unwrap()], What::TakenOver(vec![]));
        assert_eq!(db.applications().await.unwrap()[1].cookie, b"api");
    }

    #[test]
    fn ports_that_move_among_themselves_replace_nothing() {
        let ports = |first: u16, more: &str| {
            config(&format!(
                "applications: [{{ name: one, replicas: 3, replica_ports: [{{ key: PORT, base: {first} }}{more}] }}]\n"
            ))
        };
        let replaced = |before: Config, after: Config| {
            let stored: Vec<Application> = before.applications.into_iter().map(stored).collect();
            let plan = plan(&stored, &after);
            (plan.replaced().count(), plan.entangled.len())
        };
        assert_eq!(replaced(ports(4000, ""), ports(4100, "")), (1, 0));
        // The fourth is used while the others are replaced.
        assert_eq!(replaced(ports(4000, ""), ports(4004, "")), (1, 0));
        assert_eq!(replaced(ports(4000, ""), ports(4003, "")), (0, 1));
        assert_eq!(replaced(ports(4000, ""), ports(3998, "")), (0, 1));
        // All of a spread may come to run on one node.
        let spread = |base: u16| {
            config(&format!(
                "applications: [{{ name: one, spread: 8, replica_ports: [{{ key: PORT, base: {base} }}] }}]\n"
            ))
        };
        assert_eq!(replaced(spread(4000), spread(4005)), (0, 1));
        assert_eq!(replaced(spread(4000), spread(4009)), (1, 0));
        // One that stays is in nobody's way.
        let other = ", { key: ADMIN, base: 5000 }";
        assert_eq!(replaced(ports(4000, ""), ports(4000, other)), (1, 0));
        assert_eq!(replaced(ports(4000, other), ports(5000, ", { key: ADMIN, base: 4000 }")), (0, 1));
    }

    fn stored(spec: AppSpec) -> Application {
        Application {
            spec,
            configured: true,
            source: Owner::Yaml,
            manual: None,
            in_force: None,
            cookie: Vec::new(),
            generation: 0,
            created_at: Time(1),
            updated_at: Time(1),
            placed: BTreeMap::new(),
        }
    }

    #[tokio::test]
    async fn another_secret_is_told_to_those_who_hold_it_and_never_said() {
        let (db, _folder) = database().await;
        applied(&db, &config(TWO), 1).await;
        let rest = apply(&config(TWO), &db, &Word("s3cret"), None, start(2)).await.unwrap().plan;
        assert_eq!(rest.retold, ["one".parse().unwrap(), "two".parse().unwrap()]);
        let said = said(&db).await;
        assert_eq!(
            said[2..],
            [
                "secrets of one changed (with the next deployment)",
                "secrets of two changed (with the next deployment)",
            ]
        );
    }

    #[tokio::test]
    async fn a_missing_secret_is_said_once_and_its_return_is_told_to_those_who_waited() {
        let (db, _folder) = database().await;
        let one = "applications: [{ name: one }]\n";
        applied(&db, &config(one), 1).await;
        let at =
            async |secrets, at| apply(&config(one), &db, &Word(secrets), None, start(at)).await.unwrap().plan;
        let lost = at("", 2).await;
        assert_eq!((lost.untold.len(), lost.retold.len()), (1, 0));
        assert_eq!(at("", 3).await, Plan::default(), "it was said");
        // The same as before, but a node may have been told meanwhile to keep what it had.
        assert_eq!(at("same", 4).await.retold, ["one".parse().unwrap()]);
        assert_eq!(at("same", 5).await, Plan::default());
        assert_eq!(
            said(&db).await[1..],
            ["one cannot be deployed: gone; what runs stays as it is", "all secrets of one can be had again",]
        );
    }
}
