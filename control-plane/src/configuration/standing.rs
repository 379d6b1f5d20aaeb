//! Which of two configurations counts: the file, or the version that was put in force last. Pure.
//!
//! Each version remembers what the file held when it was put in force. A file that is another one since then is a newer wish; one
//! that is the same is older than what somebody applied through the API, which then stays in force: a restart undoes nothing.

use proto::ids::Digest;

use crate::config::Text;
use crate::db::ConfigurationVersion;

/// What a start puts in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counts {
    /// The file (or, without one, flags and variables alone).
    File,
    /// The version in force, which the file does not hold.
    Version,
}

/// `file`: of what it holds; `None`: there is no file, which is as good as an empty one.
pub(super) fn at_start(file: Option<Digest>, newest: Option<&ConfigurationVersion>) -> Counts {
    let text = file.unwrap_or_else(|| Text::default().sha256());
    match newest {
        Some(newest) if newest.file_sha256 == file && newest.sha256 != text => Counts::Version,
        _ => Counts::File,
    }
}

/// What the file is to the version in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    InForce,
    /// It changed since that was put in force.
    Pending,
    /// It did not change since; somebody applied another configuration.
    Overridden,
}

pub(super) fn relation(file: Digest, newest: Option<&ConfigurationVersion>) -> Relation {
    match newest {
        Some(newest) if newest.sha256 == file => Relation::InForce,
        Some(newest) if newest.file_sha256 == Some(file) => Relation::Overridden,
        _ => Relation::Pending,
    }
}

#[cfg(test)]
mod tests {
    use proto::configuration::{Difference, Origin};

    use super::*;
    use crate::clock::Time;

    fn digest(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    /// Put in force while the file held `file`.
    fn version(text: u8, file: Option<u8>) -> ConfigurationVersion {
        ConfigurationVersion {
            number: 1,
            sha256: digest(text),
            file_sha256: file.map(digest),
            by: "ann".to_owned(),
            at: Time(1),
            origin: Origin::Api,
            changes: Difference::default(),
        }
    }

    #[test]
    fn a_restart_undoes_nothing_that_was_applied_and_follows_a_file_that_changed_since() {
        const THE_FILES: u8 = 1;
        const APPLIED: u8 = 2;
        const CHANGED: u8 = 3;
        let overridden = version(APPLIED, Some(THE_FILES));
        for (file, newest, expected) in [
            (Some(THE_FILES), None, Counts::File),
            (None, None, Counts::File),
            (Some(THE_FILES), Some(version(THE_FILES, Some(THE_FILES))), Counts::File),
            (Some(CHANGED), Some(version(THE_FILES, Some(THE_FILES))), Counts::File),
            (Some(THE_FILES), Some(overridden.clone()), Counts::Version),
            (Some(CHANGED), Some(overridden.clone()), Counts::File),
            (Some(APPLIED), Some(overridden.clone()), Counts::File),
            // The file was named or dropped on the command line since.
            (None, Some(overridden), Counts::File),
            (Some(THE_FILES), Some(version(APPLIED, None)), Counts::File),
            (None, Some(version(APPLIED, None)), Counts::Version),
        ] {
            assert_eq!(at_start(file.map(digest), newest.as_ref()), expected, "{file:?} {newest:?}");
        }
        let variables_alone = ConfigurationVersion { sha256: Text::default().sha256(), ..version(0, None) };
        assert_eq!(at_start(None, Some(&variables_alone)), Counts::File);
    }

    #[test]
    fn a_file_is_pending_only_where_it_changed_after_what_is_in_force() {
        let newest = version(2, Some(1));
        assert_eq!(relation(digest(2), Some(&newest)), Relation::InForce);
        assert_eq!(relation(digest(1), Some(&newest)), Relation::Overridden);
        assert_eq!(relation(digest(3), Some(&newest)), Relation::Pending);
        assert_eq!(relation(digest(3), None), Relation::Pending);
    }
}
