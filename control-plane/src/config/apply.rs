//! Puts a configuration in force at a start: what differs from what is stored, then all of it in one transaction.
//!
//! [`plan`] is pure. The file owns the applications that it names; those that were made through the API are left alone until
//! it names them.

use std::collections::BTreeMap;

use proto::ids::{AppName, Digest};
use proto::state::Severity;
use sha2::{Digest as _, Sha256};

use super::Config;
use super::changes::{Change, Class, between};
use crate::clock::Time;
use crate::db::{Application, ApplicationsDiff, Db, DbError, NewApplication, NewEvent, Source};
use crate::spec::AppSpec;

/// Where the control plane's own settings are remembered as they were at the last start.
const REMEMBERED: &str = "configuration.control_plane";

/// Before what is compared and not said.
const HIDDEN: &str = "sha256:";

/// What is to be done to the applications.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub put: Vec<AppSpec>,
    /// No longer named: their replicas are withdrawn, their history stays.
    pub dropped: Vec<AppName>,
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
        source: Box<dyn std::error::Error + Send + Sync>,
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
            Some(known) if known.source == Source::Api => What::TakenOver,
            Some(known) if known.spec == *spec => continue,
            Some(known) => What::Changed(between(&known.spec, spec)),
        };
        plan.put.push(spec.clone());
        plan.changes.insert(spec.name.clone(), what);
    }
    let named = |app: &AppName| config.applications.iter().any(|it| it.name == *app);
    for app in stored.iter().filter(|it| it.configured && it.source == Source::Yaml && !named(&it.spec.name))
    {
        plan.dropped.push(app.spec.name.clone());
        plan.changes.insert(app.spec.name.clone(), What::Removed);
    }
    plan
}

impl Plan {
    /// One event for each application, naming each changed key.
    pub fn events(&self, now: Time) -> Vec<NewEvent> {
        self.changes.iter().map(|(app, what)| event(app, what, now)).collect()
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

/// For people; programs find the class in the event's data.
fn when(class: Class) -> &'static str {
    match class {
        Class::Immediate => "at once",
        Class::NextDeploy => "with the next start of a replica",
        Class::FullDeploy => "needs every replica to be replaced",
    }
}

/// Puts `config` in force. `cookie` makes a sealed cookie for an application that has none yet.
pub async fn apply<E: std::error::Error + Send + Sync + 'static>(
    config: &Config,
    db: &Db,
    cookie: impl Fn(&AppName) -> Result<Vec<u8>, E>,
    now: Time,
) -> Result<Plan, ApplyError> {
    let stored = db.applications().await?;
    let plan = plan(&stored, config);
    let mut events = plan.events(now);
    let settings = control_plane(config);
    let before = db.setting(REMEMBERED).await?;
    events.extend(before.as_deref().and_then(|it| settings_event(it, &settings, now)));
    let put = plan.put.iter().map(|spec| {
        let cookie = match stored.iter().find(|it| it.spec.name == spec.name) {
            Some(known) => known.cookie.clone(),
            None => cookie(&spec.name)
                .map_err(|source| ApplyError::Cookie { app: spec.name.clone(), source: Box::new(source) })?,
        };
        Ok(NewApplication { spec: spec.clone(), source: Source::Yaml, cookie })
    });
    let put = put.collect::<Result<Vec<_>, ApplyError>>()?;
    if !(put.is_empty() && plan.dropped.is_empty() && events.is_empty()) {
        let diff = ApplicationsDiff { put, dropped: plan.dropped.clone(), events };
        db.put_applications(diff, now).await?;
    }
    let settings = serde_json::to_string(&settings)?;
    if before.as_ref() != Some(&settings) {
        db.put_setting(REMEMBERED, &settings).await?;
    }
    Ok(plan)
}

/// The keys of the control plane with what is worth remembering of them. No secret, and no address that holds one.
fn control_plane(config: &Config) -> BTreeMap<String, String> {
    let Config {
        // Where it starts, not what it does; or applied elsewhere.
        file: _,
        data_dir: _,
        demo: _,
        auto_apply: _,
        applications: _,
        names_applications: _,
        notices: _,
        database_url,
        console,
        agents,
        releases,
        secrets,
        hosts,
        metrics_retention,
        logs_retention,
        later,
    } = config;
    let mut keys = BTreeMap::new();
    let mut put = |key: &str, value: String| keys.insert(key.to_owned(), value);
    put("database_url", database_url.to_string());
    put("hostname", console.hostname.clone());
    put("bind", console.bind.to_string());
    put("port", console.port.to_string());
    let proxies: Vec<String> = console.trusted_proxies.iter().map(ToString::to_string).collect();
    put("trusted_proxies", proxies.join(", "));
    if let Some(tls) = &console.tls {
        put("tls.certificate", tls.certificate.display().to_string());
        put("tls.key", tls.key.display().to_string());
    }
    put("agents.bind", agents.bind.to_string());
    put("agents.port", agents.port.to_string());
    if let Some(public) = &agents.public {
        put("agents.public", public.to_string());
    }
    put("release_adapter", releases.adapter.word().to_owned());
    put("release_bucket", releases.bucket.clone());
    put("account_name", releases.account_name.clone());
    if let Some(region) = &releases.aws_region {
        put("aws_region", region.clone());
    }
    if let Some(file) = &releases.google_credentials {
        put("google_credentials", file.display().to_string());
    }
    put("secrets_adapter", secrets.adapter.word().to_owned());
    if let Some(path) = &secrets.path {
        put("secrets_path", path.clone());
    }
    let paths = [
        ("var_path", &hosts.var_path),
        ("log_path", &hosts.log_path),
        ("monitored_app_log_path", &hosts.monitored_app_log_path),
    ];
    for (key, path) in paths {
        if let Some(path) = path {
            put(key, path.display().to_string());
        }
    }
    put("metrics_retention_time_ms", metrics_retention.0.to_string());
    put("logs_retention_time_ms", logs_retention.0.to_string());
    // There are tokens in these: a digest tells that they changed, and nothing else.
    for (key, value) in &later.0 {
        let digest = Digest(Sha256::digest(value.to_string()).into());
        put(key, format!("{HIDDEN}{}", digest.short()));
    }
    keys
}

/// `None`: nothing differs, or what was remembered cannot be read any more.
fn settings_event(before: &str, after: &BTreeMap<String, String>, now: Time) -> Option<NewEvent> {
    let before: BTreeMap<String, String> = serde_json::from_str(before).ok()?;
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let words: Vec<(String, String)> = keys
        .into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| {
            let words = match (before.get(key), after.get(key)) {
                (Some(old), Some(_)) if old.starts_with(HIDDEN) => format!("{key} changed"),
                (None, Some(new)) if new.starts_with(HIDDEN) => format!("{key} added"),
                (Some(old), None) if old.starts_with(HIDDEN) => format!("{key} removed"),
                (Some(old), Some(new)) => format!("{key} {old} → {new}"),
                (None, Some(new)) => format!("{key} {new} (was not set)"),
                (Some(old), None) => format!("{key} removed (was {old})"),
                (None, None) => key.clone(),
            };
            (key.clone(), words)
        })
        .collect();
    if words.is_empty() {
        return None;
    }
    let text: Vec<&str> = words.iter().map(|(_, words)| words.as_str()).collect();
    let text = format!("the control plane's configuration changed: {}", text.join("; "));
    let mut event = NewEvent::new(now, "config_change_applied", Severity::Info, text);
    event.data.insert("changes_count".to_owned(), words.len().into());
    // Read at the start, so in force now.
    let fields = words.into_iter().map(|(key, _)| (key, Class::Immediate.word().into()));
    event.data.insert("fields".to_owned(), serde_json::Value::Object(fields.collect()));
    Some(event)
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

    async fn applied(db: &Db, config: &Config, at: u64) -> Plan {
        apply(config, db, |app| Ok::<_, DbError>(app.as_str().as_bytes().to_vec()), Time(at)).await.unwrap()
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
                "the configuration of one changed: env[A] added (with the next start of a replica); \
                 language elixir → gleam (with the next start of a replica); replicas 2 → 5 (at once)",
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
        let put = vec![NewApplication { spec, source: Source::Api, cookie: b"api".to_vec() }];
        db.put_applications(ApplicationsDiff { put, ..ApplicationsDiff::default() }, Time(1)).await.unwrap();
        applied(&db, &config("applications: [{ name: one }]\n"), 2).await;
        assert!(db.applications().await.unwrap().iter().all(|it| it.configured));
        let plan = applied(&db, &config(TWO), 3).await;
        assert_eq!(plan.changes[&"two".parse().unwrap()], What::TakenOver);
        assert_eq!(db.applications().await.unwrap()[1].cookie, b"api");
    }

    #[test]
    fn a_changed_channel_is_named_and_not_shown() {
        let with =
            |url: &str| config(&format!("notifications: [{{ adapter: webhook, url: 'https://{url}' }}]\n"));
        let before = serde_json::to_string(&control_plane(&with("a/s3cret"))).unwrap();
        assert!(!before.contains("s3cret"));
        let event = settings_event(&before, &control_plane(&with("b/s3cret")), Time(1)).unwrap();
        assert_eq!(event.text, "the control plane's configuration changed: notifications changed");
        assert_eq!(settings_event(&before, &control_plane(&with("a/s3cret")), Time(1)), None);
    }
}
