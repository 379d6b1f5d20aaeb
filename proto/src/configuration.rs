//! The configuration as desired state: its versions, what a change of it does and when that counts, and the file that is
//! looked at.

mod wire;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::{AppName, Digest};
use crate::problem::FieldError;
use crate::timestamp::Timestamp;

/// When a changed key takes effect. The order is that of the work it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// At once; nothing is restarted for it.
    Immediate,
    /// With the next deployment, or the next start that is asked for.
    NextDeploy,
    /// Every replica has to be replaced.
    FullDeploy,
    /// With the next start of the control plane.
    Restart,
}

impl Class {
    pub const ALL: [Self; 4] = [Self::Immediate, Self::NextDeploy, Self::FullDeploy, Self::Restart];

    pub fn word(self) -> &'static str {
        match self {
            Self::Immediate => "immediate",
            Self::NextDeploy => "next_deploy",
            Self::FullDeploy => "full_deploy",
            Self::Restart => "restart",
        }
    }

    /// For people, behind a changed key.
    pub fn when(self) -> &'static str {
        match self {
            Self::Immediate => "at once",
            Self::NextDeploy => "with the next deployment",
            Self::FullDeploy => "replaces every replica, one by one",
            Self::Restart => "needs a restart of the control plane",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What a key was or is, as far as it may be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "is", content = "value", rename_all = "snake_case", try_from = "wire::Side")]
pub enum Side {
    Absent,
    /// It may be a secret.
    Hidden,
    Value(String),
}

/// One key that is no longer what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Change {
    /// Below the application or the control plane: `deploy.strategy`, `env[PHX_HOST]`.
    pub key: String,
    pub class: Class,
    pub before: Side,
    pub after: Side,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match (&self.before, &self.after) {
            (Side::Value(before), Side::Value(after)) => write!(f, "{key} {before} → {after}"),
            (Side::Absent, Side::Value(after)) => write!(f, "{key} {after} (was not set)"),
            (Side::Value(before), Side::Absent) => write!(f, "{key} removed (was {before})"),
            (Side::Absent, _) => write!(f, "{key} added"),
            (_, Side::Absent) => write!(f, "{key} removed"),
            (Side::Hidden, _) | (_, Side::Hidden) => write!(f, "{key} changed"),
        }
    }
}

/// What becomes of an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Named for the first time.
    Added,
    /// It had been removed before; its history is still there.
    Returned,
    /// Made through the API until now.
    TakenOver,
    Changed,
    /// No longer named: its replicas are withdrawn, its history stays.
    Removed,
}

impl Fate {
    pub fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Returned => "returned",
            Self::TakenOver => "taken_over",
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }

    /// `myapp` and this make a sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Added => "is new",
            Self::Returned => "comes back; its history is still there",
            Self::TakenOver => "belongs to the configuration from now on",
            Self::Changed => "changes",
            Self::Removed => "is removed: its replicas are withdrawn, its history stays",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApplicationChange {
    pub name: AppName,
    pub fate: Fate,
    /// By key; empty for one that comes or goes.
    pub changes: Vec<Change>,
}

/// What one configuration is against another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Difference {
    /// By name; those that stay as they are, are not there.
    pub applications: Vec<ApplicationChange>,
    /// Of the control plane's own settings and those of hosts, by key.
    pub control_plane: Vec<Change>,
}

impl Difference {
    pub fn is_empty(&self) -> bool {
        self.applications.is_empty() && self.control_plane.is_empty()
    }

    /// Changed keys; an application that comes or goes counts as one.
    pub fn count(&self) -> usize {
        let of_applications = self.applications.iter().map(|it| it.changes.len().max(1));
        of_applications.sum::<usize>() + self.control_plane.len()
    }

    /// What counts at that moment: an application that comes or goes does so at once.
    pub fn lines(&self, class: Class) -> Vec<Line<'_>> {
        let mut lines = Vec::new();
        let of_class = |changes: &[Change]| -> Vec<String> {
            changes.iter().filter(|it| it.class == class).map(ToString::to_string).collect()
        };
        for app in &self.applications {
            if class == Class::Immediate && app.changes.is_empty() {
                let text = app.fate.sentence().to_owned();
                lines.push(Line { application: Some(&app.name), text, is_fate: true });
            }
            let of_app = |text| Line { application: Some(&app.name), text, is_fate: false };
            lines.extend(of_class(&app.changes).into_iter().map(of_app));
        }
        let own = |text| Line { application: None, text, is_fate: false };
        lines.extend(of_class(&self.control_plane).into_iter().map(own));
        lines
    }

    /// `3 changes`
    pub fn counted(&self) -> String {
        match self.count() {
            0 => "no change".to_owned(),
            1 => "1 change".to_owned(),
            many => format!("{many} changes"),
        }
    }
}

/// One change for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Absent: of the control plane.
    pub application: Option<&'a AppName>,
    pub text: String,
    /// The text says what becomes of the application, and follows its name.
    pub is_fate: bool,
}

/// `POST /configuration/plan`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PlanConfiguration {
    /// The text of a `deployex.yaml`.
    pub yaml: String,
}

/// What applying a configuration would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(from = "wire::Plan")]
pub struct Plan {
    /// The version in force, which it was made against.
    pub base: u64,
    /// Of the text that was planned.
    pub sha256: Digest,
    #[serde(flatten)]
    pub difference: Difference,
    /// What somebody should know although nothing is wrong, such as settings that are not in force yet.
    pub notices: Vec<String>,
}

/// `POST /configuration/apply`: one of `yaml`, `pending` and `restore`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ApplyConfiguration {
    /// The text of a `deployex.yaml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yaml: Option<String>,
    /// What the file holds that the control plane looks at.
    #[serde(default)]
    pub pending: bool,
    /// The text of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<u64>,
    /// The version that it was planned against. It is refused where that is no longer the one in force.
    pub base: u64,
    /// Of the text that was planned: it is refused where the file holds another by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Applied {
    /// The version that is in force now.
    pub number: u64,
    #[serde(flatten)]
    pub difference: Difference,
    /// What counts only once the control plane was started again, of this change and of those before it.
    pub awaits_restart: Vec<Change>,
    pub sentence: String,
}

/// Where the text of a version came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Origin {
    /// The file that the control plane was started with.
    File,
    Cli,
    Api,
    Console,
    /// This earlier version.
    Restore(u64),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.pad("file"),
            Self::Cli => f.pad("cli"),
            Self::Api => f.pad("api"),
            Self::Console => f.pad("console"),
            Self::Restore(number) => f.pad(&format!("restore {number}")),
        }
    }
}

/// Not one of the words that say where a version came from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} does not say where a configuration came from")]
pub struct UnknownOrigin(String);

impl FromStr for Origin {
    type Err = UnknownOrigin;

    fn from_str(text: &str) -> Result<Self, UnknownOrigin> {
        let unknown = || UnknownOrigin(text.to_owned());
        match text {
            "file" => Ok(Self::File),
            "cli" => Ok(Self::Cli),
            "api" => Ok(Self::Api),
            "console" => Ok(Self::Console),
            _ => {
                let number = text.strip_prefix("restore ").ok_or_else(unknown)?;
                Ok(Self::Restore(number.parse().map_err(|_| unknown())?))
            }
        }
    }
}

impl TryFrom<String> for Origin {
    type Error = UnknownOrigin;

    fn try_from(text: String) -> Result<Self, UnknownOrigin> {
        text.parse()
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.to_string()
    }
}

/// A version in lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VersionSummary {
    /// From 1; the highest is in force.
    pub number: u64,
    /// Of its text.
    pub sha256: Digest,
    /// A user, a token, `start` or `auto-apply`.
    pub by: String,
    pub at: Timestamp,
    /// `file`, `cli`, `api`, `console`, `restore N`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub origin: Origin,
    /// What it changed of the version before, as it was shown then.
    pub changes: Difference,
}

/// A version with its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(from = "wire::Version")]
pub struct Version {
    #[serde(flatten)]
    pub summary: VersionSummary,
    /// As it was applied; for who may not see its secrets, its settings without them and without comments.
    pub yaml: String,
    /// Secrets were left out of `yaml`.
    pub masked: bool,
}

/// `GET /configuration`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Configuration {
    /// Absent: none was applied yet.
    pub in_force: Option<VersionSummary>,
    /// The file that the control plane was started with; absent: there was none.
    pub file: Option<WatchedFile>,
    /// A changed file is applied by itself.
    pub auto_apply: bool,
    /// Applied, and counts only once the control plane was started again.
    pub awaits_restart: Vec<Change>,
}

impl Configuration {
    /// What waits for a person, a sentence each.
    pub fn waiting(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        if let Some(file) = &self.file {
            let path = &file.path;
            match &file.state {
                FileState::InForce => {}
                FileState::Pending { plan } => sentences
                    .push(format!("{path} has changed and is not applied: {}", plan.difference.counted())),
                FileState::Faulty { faults } => {
                    let count = match faults.len() {
                        1 => "1 fault".to_owned(),
                        many => format!("{many} faults"),
                    };
                    sentences.push(format!("{path} has changed and cannot be applied: it has {count}"));
                }
                FileState::Unreadable { why } => sentences.push(format!("{path} cannot be read: {why}")),
                FileState::Overridden { .. } => {
                    if let Some(version) = &self.in_force {
                        sentences.push(format!(
                            "{path} is not what is in force: {} applied version {} ({})",
                            version.by, version.number, version.origin
                        ));
                    }
                }
            }
        }
        if !self.awaits_restart.is_empty() {
            let keys: Vec<&str> = self.awaits_restart.iter().map(|it| it.key.as_str()).collect();
            let verb = if keys.len() == 1 { "waits" } else { "wait" };
            sentences.push(format!("{} {verb} for a restart of the control plane", keys.join(", ")));
        }
        sentences
    }
}

/// The file as it was last looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(try_from = "wire::WatchedFile")]
pub struct WatchedFile {
    pub path: String,
    /// Since when it has been like this.
    pub since: Timestamp,
    #[serde(flatten)]
    pub state: FileState,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum FileState {
    /// It is the version in force.
    InForce,
    /// It changed since that was applied.
    Pending {
        plan: Plan,
    },
    /// It changed and has faults. What runs is not touched by them.
    Faulty {
        faults: Vec<FieldError>,
    },
    Unreadable {
        why: String,
    },
    /// It did not change; another configuration was applied since, and stays in force also when the control plane is started
    /// again.
    Overridden {
        plan: Plan,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_version_came_from_is_read_as_it_is_written() {
        for origin in [Origin::File, Origin::Cli, Origin::Api, Origin::Console, Origin::Restore(17)] {
            assert_eq!(origin.to_string().parse(), Ok(origin));
            let json = serde_json::to_string(&origin).unwrap();
            assert_eq!(serde_json::from_str::<Origin>(&json).unwrap(), origin);
        }
        for odd in ["", "restore", "restore x", "restore -1", "mars"] {
            assert!(odd.parse::<Origin>().is_err(), "{odd}");
        }
    }

    #[test]
    fn a_change_is_said_without_what_is_hidden() {
        let change = |before, after| {
            Change { key: "k".to_owned(), class: Class::Immediate, before, after }.to_string()
        };
        let value = |text: &str| Side::Value(text.to_owned());
        assert_eq!(change(value("1"), value("2")), "k 1 → 2");
        assert_eq!(change(Side::Absent, value("2")), "k 2 (was not set)");
        assert_eq!(change(value("1"), Side::Absent), "k removed (was 1)");
        assert_eq!(change(Side::Hidden, value("2")), "k changed");
        assert_eq!(change(Side::Absent, Side::Hidden), "k added");
        assert_eq!(change(Side::Hidden, Side::Absent), "k removed");
    }
}
