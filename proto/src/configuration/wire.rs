//! The same JSON as its parent's types write, read field by field: what serde makes of `flatten` and of tagged enums holds every
//! type twice, which the console's first visit pays for.

use serde::Deserialize;

use super::{ApplicationChange, Change, Difference, FileState, Origin, VersionSummary};
use crate::ids::Digest;
use crate::problem::FieldError;
use crate::timestamp::Timestamp;

/// A word of the JSON that says nothing, or what it needs is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not known here, or something beside it is missing")]
pub struct Unread(String);

#[derive(Deserialize)]
pub(super) struct Side {
    is: String,
    value: Option<String>,
}

impl TryFrom<Side> for super::Side {
    type Error = Unread;

    fn try_from(Side { is, value }: Side) -> Result<Self, Unread> {
        match (is.as_str(), value) {
            ("absent", _) => Ok(Self::Absent),
            ("hidden", _) => Ok(Self::Hidden),
            ("value", Some(value)) => Ok(Self::Value(value)),
            _ => Err(Unread(is)),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Plan {
    base: u64,
    sha256: Digest,
    applications: Vec<ApplicationChange>,
    control_plane: Vec<Change>,
    notices: Vec<String>,
}

impl From<Plan> for super::Plan {
    fn from(Plan { base, sha256, applications, control_plane, notices }: Plan) -> Self {
        Self { base, sha256, difference: Difference { applications, control_plane }, notices }
    }
}

#[derive(Deserialize)]
pub(super) struct Version {
    number: u64,
    sha256: Digest,
    by: String,
    at: Timestamp,
    origin: Origin,
    changes: Difference,
    yaml: String,
    masked: bool,
}

impl From<Version> for super::Version {
    fn from(Version { number, sha256, by, at, origin, changes, yaml, masked }: Version) -> Self {
        Self { summary: VersionSummary { number, sha256, by, at, origin, changes }, yaml, masked }
    }
}

#[derive(Deserialize)]
pub(super) struct WatchedFile {
    path: String,
    since: Timestamp,
    state: String,
    plan: Option<super::Plan>,
    #[serde(default)]
    faults: Vec<FieldError>,
    why: Option<String>,
}

impl TryFrom<WatchedFile> for super::WatchedFile {
    type Error = Unread;

    fn try_from(it: WatchedFile) -> Result<Self, Unread> {
        let WatchedFile { path, since, state, plan, faults, why } = it;
        let state = match (state.as_str(), plan, why) {
            ("in_force", ..) => FileState::InForce,
            ("pending", Some(plan), _) => FileState::Pending { plan },
            ("faulty", ..) => FileState::Faulty { faults },
            ("unreadable", _, Some(why)) => FileState::Unreadable { why },
            ("overridden", Some(plan), _) => FileState::Overridden { plan },
            _ => return Err(Unread(state)),
        };
        Ok(Self { path, since, state })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Class, Fate, FileState, Plan, Side, WatchedFile};
    use super::*;

    fn same<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(it: &T) {
        let json = serde_json::to_string(it).unwrap();
        assert_eq!(&serde_json::from_str::<T>(&json).unwrap(), it, "{json}");
    }

    #[test]
    fn what_is_written_is_read() {
        let change =
            |before, after| Change { key: "replicas".to_owned(), class: Class::Immediate, before, after };
        let changes =
            vec![change(Side::Absent, Side::Value("2".to_owned())), change(Side::Hidden, Side::Hidden)];
        let name = "myapp".parse().unwrap();
        let difference = Difference {
            applications: vec![ApplicationChange { name, fate: Fate::Changed, changes: changes.clone() }],
            control_plane: changes,
        };
        let sha256 = Digest([7; 32]);
        let plan = Plan { base: 3, sha256, difference: difference.clone(), notices: vec!["a".to_owned()] };
        same(&plan);
        let faults = vec![FieldError { path: "port".to_owned(), message: "is no number".to_owned() }];
        for state in [
            FileState::InForce,
            FileState::Pending { plan: plan.clone() },
            FileState::Faulty { faults },
            FileState::Unreadable { why: "it is gone".to_owned() },
            FileState::Overridden { plan },
        ] {
            same(&WatchedFile { path: "/etc/a.yaml".to_owned(), since: Timestamp(5), state });
        }
        let (by, at, origin) = ("ann".to_owned(), Timestamp(4), Origin::Restore(2));
        let summary = VersionSummary { number: 4, sha256, by, at, origin, changes: difference };
        same(&super::super::Version { summary, yaml: "port: 1".to_owned(), masked: true });
    }

    #[test]
    fn a_word_that_is_not_known_is_an_error() {
        for json in [r#"{"is":"gone"}"#, r#"{"is":"value"}"#] {
            assert!(serde_json::from_str::<Side>(json).is_err(), "{json}");
        }
        let json = r#"{"path":"a","since":1,"state":"pending"}"#;
        assert!(serde_json::from_str::<WatchedFile>(json).is_err());
    }
}
