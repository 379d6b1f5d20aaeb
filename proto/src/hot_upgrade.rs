//! Whether a release can take the place of another inside the VM that runs, and if not, why: from what both packages hold.
//!
//! Pure. [`Package`] is what is kept of a release's files when its tarball is read; [`way`] is asked by whoever plans,
//! whoever says beforehand what a deployment will be, and nobody else has an opinion. What it calls hot may still fail in
//! the VM, which has the last word.

mod because;
mod matcher;
#[cfg(feature = "archive")]
mod read;
#[cfg(feature = "archive")]
mod terms;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::because::{Because, Direction};
pub use self::matcher::{Matcher, Versions};
#[cfg(feature = "archive")]
pub(crate) use self::read::{Files, is_wanted, read};
use crate::ids::Version;
use crate::state::Language;

/// `deploy.hot_upgrade`: whether a release takes the place of another inside the VM that runs, where its package allows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum HotUpgradePolicy {
    /// Where it can be; a full deployment of the same release otherwise.
    #[default]
    Auto,
    /// Or not at all.
    Require,
    Never,
}

impl HotUpgradePolicy {
    /// As the YAML has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Require => "require",
            Self::Never => "never",
        }
    }
}

/// What a release's files say that hot upgrades go by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Package {
    pub erts: String,
    /// The release's own, which is not always the application's.
    pub name: String,
    /// The version of each of its OTP applications.
    pub libs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub appups: BTreeMap<String, Appup>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jellyfish: Vec<Jellyfish>,
    /// Why it says nothing that could be gone by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// The appup of one lib.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Appup {
    /// The version that it is for.
    pub to: String,
    /// From which it leads up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub up: Vec<Matcher>,
    /// To which it leads back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub down: Vec<Matcher>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

impl Appup {
    /// The entry that leads from a version, or back to it. The first one counts, as in OTP.
    pub fn entry(&self, version: &str, direction: Direction) -> Option<&Matcher> {
        let entries = match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        };
        entries.iter().find(|it| it.takes(version))
    }
}

/// What Jellyfish writes beside an appup that it made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jellyfish {
    pub name: String,
    #[serde(rename = "type", default = "Jellyfish::usual_kind")]
    pub kind: String,
    pub from: String,
    pub to: String,
}

impl Jellyfish {
    fn usual_kind() -> String {
        "project".to_owned()
    }
}

/// How a release comes to where another runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Up, by the appups of the release that comes.
    Hot,
    /// Back, by the appups of the release that runs.
    HotDown,
    Full {
        because: Because,
    },
}

impl Way {
    pub fn is_hot(&self) -> bool {
        !matches!(self, Self::Full { .. })
    }

    pub fn because(&self) -> Option<&Because> {
        match self {
            Self::Hot | Self::HotDown => None,
            Self::Full { because } => Some(because),
        }
    }
}

/// What no running VM exchanges.
const CORE: [&str; 3] = ["kernel", "stdlib", "sasl"];

/// From what runs to what is wanted. A package that nobody has looked into is `None`.
pub fn way(
    from: (&Version, Option<&Package>),
    to: (&Version, Option<&Package>),
    language: Language,
    policy: HotUpgradePolicy,
) -> Way {
    decide(from, to, language, policy).unwrap_or_else(|because| Way::Full { because })
}

fn decide(
    (from_version, from): (&Version, Option<&Package>),
    (to_version, to): (&Version, Option<&Package>),
    language: Language,
    policy: HotUpgradePolicy,
) -> Result<Way, Because> {
    if policy == HotUpgradePolicy::Never {
        return Err(Because::Never);
    }
    if language == Language::Gleam {
        return Err(Because::Gleam);
    }
    if from_version == to_version {
        return Err(Because::SameVersion);
    }
    let (to, from) = (usable(to_version, to)?, usable(from_version, from)?);
    if from.erts != to.erts {
        return Err(Because::Erts { brings: to.erts.clone(), runs: from.erts.clone() });
    }
    for lib in CORE {
        if let (Some(old), Some(new)) = (from.libs.get(lib), to.libs.get(lib))
            && old != new
        {
            return Err(Because::Core { lib: lib.to_owned(), from: old.clone(), to: new.clone() });
        }
    }
    for (version, package) in [(from_version, from), (to_version, to)] {
        if !package.libs.contains_key("sasl") {
            return Err(Because::NoSasl { version: version.to_string() });
        }
    }
    if from.libs == to.libs {
        return Err(Because::NothingNewer);
    }
    // Which of two versions is the newer one their appups say; that of their numbers only decides what is said of it.
    let up = leads(from, to, Direction::Up);
    let Err(not_up) = up else { return Ok(Way::Hot) };
    match leads(to, from, Direction::Down) {
        Ok(()) => Ok(Way::HotDown),
        Err(not_down) if to_version < from_version => Err(not_down),
        Err(_) => Err(not_up),
    }
}

fn usable<'a>(version: &Version, package: Option<&'a Package>) -> Result<&'a Package, Because> {
    let version = version.to_string();
    match package {
        None => Err(Because::Unread { version }),
        Some(Package { fault: Some(fault), .. }) => Err(Because::Package { version, fault: fault.clone() }),
        Some(package) => Ok(package),
    }
}

/// Whether the appups of the newer of two lead from, or back to, the older one. A lib that only one of them has needs none.
fn leads(older: &Package, newer: &Package, direction: Direction) -> Result<(), Because> {
    let changed = newer.libs.iter().filter_map(|(lib, new)| {
        let old = older.libs.get(lib).filter(|old| *old != new)?;
        Some((lib, old, new))
    });
    let mut lacking: Option<Because> = None;
    for (lib, old, new) in changed.clone() {
        match entry(newer.appups.get(lib), (lib, old, new), direction) {
            Ok(()) => {}
            Err(because) => match &mut lacking {
                None => lacking = Some(because),
                Some(Because::NoAppup { others, .. }) if matches!(because, Because::NoAppup { .. }) => {
                    *others += 1;
                }
                Some(_) => {}
            },
        }
    }
    if let Some(because) = lacking {
        return Err(because);
    }
    for Jellyfish { name, from, to, .. } in &newer.jellyfish {
        if changed.clone().any(|(lib, old, new)| lib == name && (from != old || to != new)) {
            let (lib, from, to) = (name.clone(), from.clone(), to.clone());
            return Err(Because::Jellyfish { lib, from, to });
        }
    }
    Ok(())
}

fn entry(
    appup: Option<&Appup>,
    (lib, old, new): (&String, &String, &String),
    direction: Direction,
) -> Result<(), Because> {
    let none = |has| Because::NoAppup { lib: lib.clone(), direction, version: old.clone(), has, others: 0 };
    let Some(appup) = appup else { return Err(none(Vec::new())) };
    if let Some(fault) = &appup.fault {
        return Err(Because::BadAppup { lib: lib.clone(), fault: fault.clone() });
    }
    if appup.to != *new {
        return Err(Because::OtherAppup { lib: lib.clone(), of: appup.to.clone(), to: new.clone() });
    }
    match appup.entry(old, direction) {
        Some(Matcher { restarts: true, .. }) => Err(Because::NewVm { lib: lib.clone() }),
        Some(_) => Ok(()),
        None => {
            let entries = if direction == Direction::Up { &appup.up } else { &appup.down };
            Err(none(entries.iter().map(Matcher::to_string).collect()))
        }
    }
}
