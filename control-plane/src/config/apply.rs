//! Puts a configuration in force at a start: what differs from what is stored, then all of it in one transaction.
//!
//! [`plan`] is pure. The file owns the applications that it names; those that were made through the API are left alone until
//! it names them.

mod own;

use std::collections::BTreeMap;

use proto::ids::AppName;
use proto::state::Severity;

use super::Config;
use super::changes::{Change, Class, between};
use crate::clock::Time;
use crate::db::{Application, ApplicationsDiff, Db, DbError, NewApplication, NewEvent, Source as Owner};
use crate::spec::AppSpec;
use crate::spec::monitoring::HostMonitoring;

/// Where the control plane's own settings are remembered as they were at the last start.
const OWN: &str = "configuration.control_plane";

/// Where it is remembered of each application what its secrets were, as fingerprints.
const SECRETS: &str = "configuration.secrets";

/// What is asked about applications' secrets.
pub trait Secrets: Send + Sync {
    /// Random and sealed, for an application that has none yet.
    fn new_cookie(&self, app: &AppName) -> Result<Vec<u8>, Source>;

    /// Of everything secret that agents are given for an application: tells whether it changed and nothing else. An error
    /// is a sentence: which of it cannot be had, and why.
    fn fingerprint(&self, spec: &AppSpec, cookie: &[u8]) -> Result<String, String>;
}

/// A failure behind the trait; what exactly, is for the log.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

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
}

#[derive(Debug, PartialEq)]
pub enum What {
    Added,
    /// It had been removed before; its history is still there.
    Returned,
    Changed(Vec<Change>),
    /// Through the API until now; the file owns it from here on.
    TakenOver,
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
            Some(known) if known.source == Owner::Api => What::TakenOver,
            Some(known) if known.spec == *spec => continue,
            Some(known) => What::Changed(between(&known.spec, spec)),
        };
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

impl Plan {
    /// One event for each application, naming each changed key, and one for each that lacks a secret.
    pub fn events(&self, now: Time) -> Vec<NewEvent> {
        let changes = self.changes.iter().map(|(app, what)| event(app, what, now));
        changes.chain(self.untold.iter().map(|(app, why)| secret_missing(app, why, now))).collect()
    }
}

fn event(app: &AppName, what: &What, now: Time) -> NewEvent {
    let (text, fields): (String, Vec<(String, Class)>) = match what {
        What::Added => (format!("the configuration names {app} for the first time"), Vec::new()),
        What::Returned => (format!("the configuration names {app} again"), Vec::new()),
        What::TakenOver => (format!("{app} belongs to the configuration file from now on"), Vec::new()),
        What::Removed => {
            (format!("the configuration no longer names {app}: its replicas are withdrawn"), Vec::new())
        }
        What::Secrets => {
            let text = format!("secrets of {app} changed ({})", when(Class::NextDeploy));
            (text, vec![("secrets".to_owned(), Class::NextDeploy)])
        }
        What::SecretsFound => (format!("all secrets of {app} can be had again"), Vec::new()),
        What::Changed(changes) => {
            let words: Vec<String> = changes.iter().map(|it| format!("{it} ({})", when(it.class))).collect();
            let fields = changes.iter().map(|it| (it.key.clone(), it.class)).collect();
            (format!("the configuration of {app} changed: {}", words.join("; ")), fields)
        }
    };
    let mut event = NewEvent::new(now, "config_change_applied", Severity::Info, text);
    event.app = Some(app.clone());
    event.data.insert("changes_count".to_owned(), fields.len().max(1).into());
    let fields = fields.into_iter().map(|(key, class)| (key, class.word().into()));
    event.data.insert("fields".to_owned(), serde_json::Value::Object(fields.collect()));
    event
}

fn secret_missing(app: &AppName, why: &str, now: Time) -> NewEvent {
    let text = format!("{app} cannot be deployed: {why}; what runs stays as it is");
    let mut event = NewEvent::new(now, "secret_missing", Severity::Error, text);
    event.app = Some(app.clone());
    event
}

/// For people; programs find the class in the event's data.
fn when(class: Class) -> &'static str {
    match class {
        Class::Immediate => "at once",
        Class::NextDeploy => "with the next deployment",
        Class::FullDeploy => "needs every replica to be replaced",
    }
}

/// Puts `config` in force. At a start no agent is connected yet: each gets what changed for it when it is.
pub async fn apply(config: &Config, db: &Db, secrets: &dyn Secrets, now: Time) -> Result<Plan, ApplyError> {
    let stored = db.applications().await?;
    let mut plan = plan(&stored, config);
    let put = put(&plan.put, &stored, secrets)?;
    let before = db.setting(SECRETS).await?;
    let before: Fingerprints = before.and_then(|it| serde_json::from_str(&it).ok()).unwrap_or_default();
    let fingerprints = fingerprints(&stored, &plan.dropped, &put, secrets);
    plan.tell_anew(&before, &fingerprints);

    let mut events = plan.events(now);
    let own = own::sheet(config);
    let own_before = db.setting(OWN).await?;
    events.extend(own_before.as_deref().and_then(|it| own::event(it, &own, now)));
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
    if plan != Plan::default() || !events.is_empty() || !remembered.is_empty() {
        let (dropped, retold) = (plan.dropped.clone(), plan.retold.clone());
        let diff = ApplicationsDiff { put, dropped, retold, every_node, remembered, events };
        db.put_applications(diff, now).await?;
    }
    Ok(plan)
}

/// Of each application, what its secrets were, or since when agents cannot be told of it: [`UNTOLD`] and why.
type Fingerprints = BTreeMap<AppName, String>;

/// No fingerprint begins so.
const UNTOLD: &str = "untold: ";

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

/// Of every application that is configured from now on.
fn fingerprints(
    stored: &[Application],
    dropped: &[AppName],
    put: &[NewApplication],
    secrets: &dyn Secrets,
) -> Fingerprints {
    let stays = |it: &&Application| it.configured && !dropped.contains(&it.spec.name);
    let known = stored.iter().filter(stays).map(|it| (&it.spec, &it.cookie));
    let specs: BTreeMap<&AppName, _> = known
        .chain(put.iter().map(|it| (&it.spec, &it.cookie)))
        .map(|(spec, cookie)| (&spec.name, (spec, cookie)))
        .collect();
    let fingerprint = |(app, (spec, cookie)): (&AppName, (&AppSpec, &Vec<u8>))| {
        let now = secrets.fingerprint(spec, cookie).unwrap_or_else(|why| {
            tracing::error!(%app, why, "an application cannot be deployed: a secret is missing");
            format!("{UNTOLD}{why}")
        });
        (app.clone(), now)
    };
    specs.into_iter().map(fingerprint).collect()
}

impl Plan {
    /// Those whose secrets changed, or can be had again: agents may have been told to keep what they had meanwhile. What was
    /// not remembered, is remembered from now on.
    fn tell_anew(&mut self, before: &Fingerprints, after: &Fingerprints) {
        for (app, now) in after.iter().filter(|(app, now)| before.get(*app) != Some(*now)) {
            if let Some(why) = now.strip_prefix(UNTOLD) {
                self.untold.insert(app.clone(), why.to_owned());
                continue;
            }
            let Some(then) = before.get(app) else { continue };
            self.retold.push(app.clone());
            let what = if then.starts_with(UNTOLD) { What::SecretsFound } else { What::Secrets };
            self.changes.entry(app.clone()).or_insert(what);
        }
    }
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

    async fn applied(db: &Db, config: &Config, at: u64) -> Plan {
        apply(config, db, &Word("same"), Time(at)).await.unwrap()
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
        assert_eq!(plan.changes[&"two".parse().unwrap()], What::TakenOver);
        assert_eq!(db.applications().await.unwrap()[1].cookie, b"api");
    }

    #[tokio::test]
    async fn another_secret_is_told_to_those_who_hold_it_and_never_said() {
        let (db, _folder) = database().await;
        applied(&db, &config(TWO), 1).await;
        let rest = apply(&config(TWO), &db, &Word("s3cret"), Time(2)).await.unwrap();
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
        let at = async |secrets, at| apply(&config(one), &db, &Word(secrets), Time(at)).await.unwrap();
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
