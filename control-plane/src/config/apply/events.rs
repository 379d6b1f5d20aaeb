//! What is told of a configuration that was put in force. Pure.

use proto::ids::AppName;
use proto::state::Severity;

use super::What;
use crate::clock::Time;
use crate::config::changes::Class;
use crate::db::NewEvent;

/// `entangled`: nothing is replaced for its ports.
pub(super) fn event(app: &AppName, what: &What, entangled: bool, now: Time) -> NewEvent {
    let (text, fields): (String, Vec<(String, Class)>) = match what {
        What::Added => (format!("the configuration names {app} for the first time"), Vec::new()),
        What::Returned => (format!("the configuration names {app} again"), Vec::new()),
        What::TakenOver(changes) => {
            let fields = changes.iter().map(|it| (it.key.clone(), it.class)).collect();
            (format!("{app} belongs to the configuration from now on"), fields)
        }
        What::Removed => {
            (format!("the configuration no longer names {app}: its replicas are withdrawn"), Vec::new())
        }
        What::Secrets => {
            let text = format!("secrets of {app} changed ({})", Class::NextDeploy.when());
            (text, vec![("secrets".to_owned(), Class::NextDeploy)])
        }
        What::SecretsFound => (format!("all secrets of {app} can be had again"), Vec::new()),
        What::Changed(changes) => {
            let when = |class| match class {
                Class::FullDeploy if entangled => Class::NextDeploy.when(),
                class => class.when(),
            };
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

pub(super) fn secret_missing(app: &AppName, why: &str, now: Time) -> NewEvent {
    let text = format!("{app} cannot be deployed: {why}; what runs stays as it is");
    let mut event = NewEvent::new(now, "secret_missing", Severity::Error, text);
    event.app = Some(app.clone());
    event
}
