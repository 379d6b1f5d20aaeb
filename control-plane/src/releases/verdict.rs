//! What the state of a bucket means for one application. Pure and level-triggered: everything that is known goes in, what
//! should be stored comes out, and asking twice gives the same answer.
//!
//! ```text
//!  current.json ── absent (awaited, or gone), bad ▶ trouble: the last good wish stays in force
//!       │ good
//!       ▼
//!  tarball ── absent ────────────────────────▶ waiting for dist/…, after a while: missing
//!       │ there, its digest not known ───────▶ read it, then ask again
//!       ▼
//!  its digest ── refused, not the hash ──────▶ trouble
//!       │     ── another one of this version ▶ republished: recorded, deployed only on request
//!       ▼
//!  wish
//! ```

use std::time::Duration;

use proto::archive::{Fault, Inspection};
use proto::hot_upgrade::Package;
use proto::ids::{Digest, ReleaseKey, Version};

use super::current::Current;
use super::source::{Etag, Tarball};
use super::trouble::Trouble;
use crate::db::Release;

/// CI often writes `current.json` before the tarball is there. After this long nobody is uploading it any more: somebody has
/// forgotten it, or gave it another name.
pub(super) const UPLOAD_GRACE: Duration = Duration::from_mins(10);

/// `current.json` as it was last read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Document {
    Absent,
    Bad { etag: Etag, why: String },
    Good { etag: Etag, current: Current },
}

impl Document {
    pub(super) fn etag(&self) -> Option<&Etag> {
        match self {
            Self::Absent => None,
            Self::Bad { etag, .. } | Self::Good { etag, .. } => Some(etag),
        }
    }
}

/// A tarball that was read in this run of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) version: Version,
    pub(super) etag: Etag,
    pub(super) archive: Result<Inspection, Fault>,
}

/// Everything that is known of one application's bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look<'a> {
    pub(super) document: &'a Document,
    /// Of the version that the document names.
    pub(super) tarball: Option<&'a Tarball>,
    pub(super) read: Option<&'a Read>,
    /// Recorded under the version that the document names.
    pub(super) recorded: &'a [Release],
    /// What the bucket named last.
    pub(super) wish: Option<&'a ReleaseKey>,
    /// What a person asked for since.
    pub(super) asked_for: Option<&'a ReleaseKey>,
    /// For how long this document is the last.
    pub(super) named_for: Duration,
    /// The application's language has packages that hot upgrades go by.
    pub(super) has_packages: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nobody knows the tarball's digest yet.
    Read {
        version: Version,
    },
    Stand(Stand),
}

/// What should be stored; nothing, where it is stored already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stand {
    pub(super) records: Vec<Record>,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Wish(ReleaseKey),
    Trouble(Trouble),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    New {
        key: ReleaseKey,
        size: u64,
        etag: Etag,
        package: Option<Package>,
    },
    /// The same bytes were written again: the object to relay is another one now.
    Moved {
        key: ReleaseKey,
        etag: Etag,
    },
    /// It was recorded before packages were looked into.
    Package {
        key: ReleaseKey,
        package: Package,
    },
    /// `current.json` says otherwise than when it was recorded what is run before it starts.
    PreCommands {
        key: ReleaseKey,
        pre_commands: Vec<String>,
    },
}

pub(super) fn judge(look: &Look<'_>) -> Verdict {
    let trouble = |trouble| Verdict::Stand(Stand { records: Vec::new(), outcome: Outcome::Trouble(trouble) });
    let current = match look.document {
        Document::Absent => {
            return trouble(match look.wish {
                None => Trouble::NoDocument,
                Some(wish) => Trouble::DocumentGone { wish: wish.clone() },
            });
        }
        Document::Bad { why, .. } => return trouble(Trouble::BadDocument { why: why.clone() }),
        Document::Good { current, .. } => current,
    };
    let version = &current.version;
    let Some(tarball) = look.tarball else {
        let is_in_force = look.wish.is_some_and(|wish| wish.version == *version);
        let version = version.clone();
        return trouble(match is_in_force {
            true => Trouble::TarballGone { version },
            false if look.named_for >= UPLOAD_GRACE => Trouble::TarballMissing { version },
            false => Trouble::NoTarball { version },
        });
    };
    let (found, record) = match identify(look, version, tarball) {
        Identity::Unread => return Verdict::Read { version: version.clone() },
        Identity::Refused(fault) => {
            return trouble(Trouble::Refused { version: version.clone(), fault: fault.clone() });
        }
        Identity::Known(sha256, record) => (ReleaseKey { version: version.clone(), sha256 }, record),
    };
    if let Some(written) = current.digest().filter(|written| *written != found.sha256) {
        return trouble(Trouble::WrongHash { version: version.clone(), written, found: found.sha256 });
    }
    let is_republished = look.recorded.iter().any(|release| release.key.sha256 != found.sha256)
        && look.wish != Some(&found)
        && look.asked_for != Some(&found);
    let known = look.recorded.iter().find(|release| release.key == found);
    let other = known.filter(|release| release.pre_commands != current.pre_commands);
    let described =
        other.map(|_| Record::PreCommands { key: found.clone(), pre_commands: current.pre_commands.clone() });
    let records = record.map(|it| *it).into_iter().chain(described).collect();
    let outcome =
        if is_republished { Outcome::Trouble(Trouble::Republished { found }) } else { Outcome::Wish(found) };
    Verdict::Stand(Stand { records, outcome })
}

enum Identity<'a> {
    Unread,
    Refused(&'a Fault),
    Known(Digest, Option<Box<Record>>),
}

/// Which bytes the tarball has: as recorded for this very object, or as read since.
fn identify<'a>(look: &Look<'a>, version: &Version, tarball: &Tarball) -> Identity<'a> {
    let is_this = |release: &&Release| release.etag.as_deref() == Some(tarball.etag.0.as_str());
    let read = look.read.filter(|read| read.version == *version && read.etag == tarball.etag);
    if let Some(release) = look.recorded.iter().find(is_this) {
        let sha256 = release.key.sha256;
        return match (&release.package, look.has_packages, read) {
            (None, true, None) => Identity::Unread,
            (None, true, Some(read)) => {
                let inspection = read.archive.as_ref().ok().filter(|it| it.summary.sha256 == sha256);
                let package = inspection.and_then(|it| it.package.clone());
                let key = release.key.clone();
                Identity::Known(sha256, package.map(|package| Box::new(Record::Package { key, package })))
            }
            _ => Identity::Known(sha256, None),
        };
    }
    let Some(read) = read else { return Identity::Unread };
    match &read.archive {
        Err(fault) => Identity::Refused(fault),
        Ok(Inspection { summary, package }) => {
            let key = ReleaseKey { version: version.clone(), sha256: summary.sha256 };
            let etag = tarball.etag.clone();
            let record = if look.recorded.iter().any(|release| release.key == key) {
                Record::Moved { key, etag }
            } else {
                Record::New { key, size: summary.size, etag, package: package.clone() }
            };
            Identity::Known(summary.sha256, Some(Box::new(record)))
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::archive::{StreamFault, Summary};

    use super::*;
    use crate::clock::Time;

    fn etag(text: &str) -> Etag {
        Etag(text.to_owned())
    }

    fn key(version: &str, sha: u8) -> ReleaseKey {
        ReleaseKey { version: version.parse().unwrap(), sha256: Digest([sha; 32]) }
    }

    fn good(json: &str) -> Document {
        Document::Good { etag: etag("doc"), current: Current::parse(json.as_bytes()).unwrap() }
    }

    fn tarball(text: &str) -> Tarball {
        Tarball { etag: etag(text), size: 9 }
    }

    fn read(version: &str, etag_text: &str, sha: u8) -> Read {
        let summary = Summary { sha256: Digest([sha; 32]), size: 9, unpacked: 90, files: 3 };
        Read {
            version: version.parse().unwrap(),
            etag: etag(etag_text),
            archive: Ok(Inspection { summary, package: Some(package()) }),
        }
    }

    fn package() -> Package {
        Package { erts: "13.1.5".to_owned(), ..Package::default() }
    }

    fn recorded(version: &str, sha: u8, etag: &str) -> Release {
        Release {
            app: "demo".parse().unwrap(),
            key: key(version, sha),
            size: 9,
            declared_hash: None,
            pre_commands: Vec::new(),
            etag: Some(etag.to_owned()),
            recorded_at: Time(1),
            package: Some(package()),
        }
    }

    fn empty(document: &Document) -> Look<'_> {
        Look {
            document,
            tarball: None,
            read: None,
            recorded: &[],
            wish: None,
            asked_for: None,
            named_for: Duration::ZERO,
            has_packages: true,
        }
    }

    fn outcome(look: &Look<'_>) -> Outcome {
        match judge(look) {
            Verdict::Stand(stand) => stand.outcome,
            Verdict::Read { .. } => panic!("nothing is to be read: {look:?}"),
        }
    }

    #[test]
    fn a_new_tarball_is_read_once_and_then_wished_for() {
        let document = good(r#"{"version":"1"}"#);
        let (there, read, old) = (tarball("a"), read("1", "a", 1), read("1", "b", 2));
        let look = Look { tarball: Some(&there), ..empty(&document) };
        assert_eq!(judge(&look), Verdict::Read { version: "1".parse().unwrap() });
        assert_eq!(
            judge(&Look { read: Some(&old), ..look }),
            judge(&look),
            "what was read is of another object"
        );
        let record = Record::New { key: key("1", 1), size: 9, etag: etag("a"), package: Some(package()) };
        assert_eq!(
            judge(&Look { read: Some(&read), ..look }),
            Verdict::Stand(Stand { records: vec![record], outcome: Outcome::Wish(key("1", 1)) })
        );
        let known = [recorded("1", 1, "a")];
        assert_eq!(
            judge(&Look { recorded: &known, ..look }),
            Verdict::Stand(Stand { records: Vec::new(), outcome: Outcome::Wish(key("1", 1)) }),
            "what is recorded is not read again after a restart"
        );
    }

    #[test]
    fn what_an_earlier_version_recorded_is_looked_into_once() {
        let document = good(r#"{"version":"1"}"#);
        let (there, again) = (tarball("a"), read("1", "a", 1));
        let known = [Release { package: None, ..recorded("1", 1, "a") }];
        let look = Look { tarball: Some(&there), recorded: &known, ..empty(&document) };
        assert!(matches!(judge(&look), Verdict::Read { .. }));
        let stand = |records| Verdict::Stand(Stand { records, outcome: Outcome::Wish(key("1", 1)) });
        let record = Record::Package { key: key("1", 1), package: package() };
        assert_eq!(judge(&Look { read: Some(&again), ..look }), stand(vec![record]));
        assert_eq!(judge(&Look { has_packages: false, ..look }), stand(Vec::new()), "Gleam has none");
        let refused = Read { archive: Err(StreamFault::NotGzip.into()), ..again };
        assert_eq!(judge(&Look { read: Some(&refused), ..look }), stand(Vec::new()), "it stays what it was");
    }

    #[test]
    fn a_missing_tarball_is_waited_for_and_one_in_force_is_missed() {
        let document = good(r#"{"version":"1"}"#);
        let version: Version = "1".parse().unwrap();
        let look = empty(&document);
        assert_eq!(outcome(&look), Outcome::Trouble(Trouble::NoTarball { version: version.clone() }));
        let overdue = Look { named_for: UPLOAD_GRACE, ..look };
        assert_eq!(outcome(&overdue), Outcome::Trouble(Trouble::TarballMissing { version: version.clone() }));
        let wish = key("1", 1);
        let look = Look { wish: Some(&wish), ..look };
        assert_eq!(outcome(&look), Outcome::Trouble(Trouble::TarballGone { version }));
        let absent = empty(&Document::Absent);
        assert_eq!(outcome(&absent), Outcome::Trouble(Trouble::NoDocument));
        let gone = Look { wish: Some(&wish), ..absent };
        assert_eq!(outcome(&gone), Outcome::Trouble(Trouble::DocumentGone { wish: wish.clone() }));
    }

    #[test]
    fn a_hash_that_is_a_digest_is_enforced_also_on_what_is_recorded() {
        let wrong = good(&format!("{{\"version\":\"1\",\"hash\":\"{}\"}}", "02".repeat(32)));
        let right = good(&format!("{{\"version\":\"1\",\"hash\":\"sha256:{}\"}}", "01".repeat(32)));
        let other = good(r#"{"version":"1","hash":"abc"}"#);
        let (there, read, known) = (tarball("a"), read("1", "a", 1), [recorded("1", 1, "a")]);
        for (read, recorded) in [(Some(&read), &[][..]), (None, &known[..])] {
            let look = |document| Look { tarball: Some(&there), read, recorded, ..empty(document) };
            assert!(matches!(outcome(&look(&wrong)), Outcome::Trouble(Trouble::WrongHash { .. })));
            assert_eq!(outcome(&look(&right)), Outcome::Wish(key("1", 1)));
            assert_eq!(outcome(&look(&other)), Outcome::Wish(key("1", 1)));
        }
        let Verdict::Stand(stand) =
            judge(&Look { tarball: Some(&there), read: Some(&read), ..empty(&wrong) })
        else {
            panic!("it was read");
        };
        assert_eq!(stand.records, [], "what has a wrong hash is not recorded");
    }

    #[test]
    fn a_refused_tarball_is_not_read_again_until_it_changes() {
        let document = good(r#"{"version":"1"}"#);
        let there = tarball("a");
        let refused = Read { archive: Err(StreamFault::NotGzip.into()), ..read("1", "a", 0) };
        let look = Look { tarball: Some(&there), read: Some(&refused), ..empty(&document) };
        assert!(matches!(outcome(&look), Outcome::Trouble(Trouble::Refused { .. })));
        let changed = tarball("b");
        assert!(matches!(judge(&Look { tarball: Some(&changed), ..look }), Verdict::Read { .. }));
    }

    #[test]
    fn the_same_version_with_other_bytes_is_recorded_and_deployed_only_on_request() {
        let document = good(r#"{"version":"1"}"#);
        let (there, read) = (tarball("b"), read("1", "b", 2));
        let (old, new) = (key("1", 1), key("1", 2));
        let before = [recorded("1", 1, "a")];
        let look = Look {
            tarball: Some(&there),
            read: Some(&read),
            recorded: &before,
            wish: Some(&old),
            ..empty(&document)
        };
        let Verdict::Stand(stand) = judge(&look) else { panic!("it was read") };
        assert!(matches!(stand.records[..], [Record::New { .. }]));
        assert_eq!(stand.outcome, Outcome::Trouble(Trouble::Republished { found: new.clone() }));
        let both = [recorded("1", 2, "b"), recorded("1", 1, "a")];
        let look = Look { recorded: &both, read: None, ..look };
        assert_eq!(outcome(&look), Outcome::Trouble(Trouble::Republished { found: new.clone() }));
        assert_eq!(outcome(&Look { asked_for: Some(&new), ..look }), Outcome::Wish(new.clone()));
        assert_eq!(outcome(&Look { wish: Some(&new), ..look }), Outcome::Wish(new), "and stays so");
    }

    #[test]
    fn the_same_bytes_written_again_are_the_same_release() {
        let document = good(r#"{"version":"1"}"#);
        let (there, read, known) = (tarball("b"), read("1", "b", 1), [recorded("1", 1, "a")]);
        let look = Look { tarball: Some(&there), read: Some(&read), recorded: &known, ..empty(&document) };
        let record = Record::Moved { key: key("1", 1), etag: etag("b") };
        assert_eq!(
            judge(&look),
            Verdict::Stand(Stand { records: vec![record], outcome: Outcome::Wish(key("1", 1)) })
        );
    }

    #[test]
    fn other_pre_commands_of_a_recorded_release_are_recorded_until_they_are() {
        let document = good(r#"{"version":"1","pre_commands":["eval A.b()"]}"#);
        let (there, mut known) = (tarball("a"), [recorded("1", 1, "a")]);
        let records =
            |recorded: &[Release]| match judge(&Look { tarball: Some(&there), recorded, ..empty(&document) })
            {
                Verdict::Stand(stand) => stand.records,
                Verdict::Read { .. } => panic!("it is known"),
            };
        let pre_commands = vec!["eval A.b()".to_owned()];
        let record = Record::PreCommands { key: key("1", 1), pre_commands: pre_commands.clone() };
        assert_eq!(records(&known), [record]);
        known[0].pre_commands = pre_commands;
        assert_eq!(records(&known), []);
    }
}
