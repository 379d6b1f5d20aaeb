//! Whether an application's secrets are others than they were: told by fingerprints, which show nothing of them.

use std::collections::BTreeMap;

use proto::ids::AppName;

use super::{Plan, What};
use crate::db::{Application, NewApplication};
use crate::spec::AppSpec;

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

/// Of each application, what its secrets were, or since when agents cannot be told of it: [`UNTOLD`] and why.
pub(super) type Fingerprints = BTreeMap<AppName, String>;

/// No fingerprint begins so.
const UNTOLD: &str = "untold: ";

/// Of every application that is configured from now on.
pub(super) fn fingerprints(
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
    pub(super) fn tell_anew(&mut self, before: &Fingerprints, after: &Fingerprints) {
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
