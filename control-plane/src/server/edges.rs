//! The narrow traits by which the parts of the control plane know each other, fulfilled: each by a few lines over a handle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use proto::agent::{LARGEST_LOGO, MAX_ANSWER};
use proto::ids::{AppName, Digest, NodeId, ReleaseKey, Version};
use proto::metrics::{HostPoint, VmPoint};
use proto::pb;
use proto::replicas::Usage;
use proto::state::{Language, Liveness};
use rand::RngCore as _;
use ring::hmac;
use secrecy::ExposeSecret as _;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::hosts;
use crate::agents::registry::{AssignmentSource, RelayError, ReleaseBytes, ReleaseRelay, Source};
use crate::agents::{Agents, Counted, HostReport, OpenStreamError, ReplicaLoad, VmPast};
use crate::assign::{self, Assignments, Unopened};
use crate::clock::Time;
use crate::config::apply;
use crate::configuration;
use crate::db::{Db, DbError};
use crate::error::chain;
use crate::fleet::{AppFleet, Observed, Place};
use crate::picture::{Backend, LogChunks, NodeSight, StreamError, UnderWay};
use crate::reconcile::{self, PlanStore, Stored, WaitingByApp};
use crate::releases::{self, SeekError};
use crate::rollout::Plan;
use crate::secrets::Secrets;
use crate::spec::AppSpec;
use crate::vault::{Purpose, Vault};

/// It is small, and who asks is a browser.
const PICTURE_WITHIN: Duration = Duration::from_secs(10);

/// What an application's cookie is sealed with, beside the purpose.
fn cookie_context(app: &AppName) -> String {
    format!("applications/{app}/cookie")
}

/// Opens what assignments need.
pub(super) struct Opener {
    pub(super) vault: Arc<Vault>,
    pub(super) secrets: Arc<Secrets>,
}

impl assign::Secrets for Opener {
    fn cookie(&self, app: &AppName, sealed: &[u8]) -> Result<String, Unopened> {
        // One for all where the configuration gives one; else the application's own.
        if let Some(cookie) = &self.secrets.erlang_cookie {
            return Ok(cookie.expose_secret().to_owned());
        }
        let plain = self.vault.unseal(Purpose::Settings, &cookie_context(app), sealed)?;
        Ok(String::from_utf8(plain.to_vec())?)
    }

    fn value(&self, name: &str) -> Result<String, Unopened> {
        Ok(self.secrets.resolve(name)?.expose_secret().to_owned())
    }
}

impl apply::Secrets for Opener {
    fn new_cookie(&self, app: &AppName) -> Result<Vec<u8>, apply::Source> {
        Ok(self.vault.seal(Purpose::Settings, &cookie_context(app), &random_cookie())?)
    }

    fn fingerprint(&self, spec: &AppSpec, cookie: &[u8]) -> Result<String, String> {
        let key = self.vault.key(Purpose::Fingerprints).map_err(|error| chain(&error))?;
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.as_slice()));
        // Each with its length before it, so that no two lists read the same.
        let mut add = |text: &str| {
            context.update(&text.len().to_be_bytes());
            context.update(text.as_bytes());
        };
        let told = assign::secret_values(spec, cookie, self).map_err(|untold| chain(&untold))?;
        for value in &told {
            add(value);
        }
        let tag: [u8; 32] = context.sign().as_ref().try_into().map_err(|_| "a tag has another length")?;
        Ok(Digest(tag).to_string())
    }
}

/// Hex, so that it needs no quoting anywhere.
fn random_cookie() -> Zeroizing<Vec<u8>> {
    let mut bytes = [0; 24];
    rand::rng().fill_bytes(&mut bytes);
    Zeroizing::new(bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect())
}

#[async_trait]
impl AssignmentSource for Assignments {
    async fn assignment(&self, node: NodeId) -> Result<pb::Assignment, Source> {
        Ok(self.of(node).await?)
    }

    async fn is_to_run(&self, node: NodeId, app: &AppName, key: &ReleaseKey) -> Result<bool, Source> {
        Ok(Self::is_to_run(self, node, app, key).await?)
    }

    async fn peer_hosts(&self, node: NodeId, app: &AppName) -> Result<Option<Vec<String>>, Source> {
        Ok(Self::peer_hosts(self, node, app).await?)
    }
}

#[async_trait]
impl ReleaseRelay for releases::Relay {
    async fn open(&self, app: &AppName, key: &ReleaseKey, offset: u64) -> Result<ReleaseBytes, RelayError> {
        match Self::open(self, app, key, offset).await {
            Ok(chunks) => Ok(chunks.map_err(|error| RelayError::Failed(error.into())).boxed()),
            Err(releases::RelayError::Unknown { .. } | releases::RelayError::Gone { .. }) => {
                Err(RelayError::Gone)
            }
            Err(releases::RelayError::Changed { .. }) => Err(RelayError::Replaced),
            Err(error @ (releases::RelayError::Source(_) | releases::RelayError::Db(_))) => {
                Err(RelayError::Failed(error.into()))
            }
        }
    }
}

/// Every application's fleet, with whether its nodes can be told of it.
#[derive(Clone)]
pub(super) struct Fleets {
    pub(super) db: Db,
    pub(super) secrets: Arc<dyn assign::Secrets>,
}

impl Fleets {
    async fn load(&self) -> Result<Vec<AppFleet>, DbError> {
        let mut fleets = self.db.load_app_fleets().await?;
        for fleet in &mut fleets {
            fleet.untold = fleet.spec.as_ref().and_then(|spec| assign::untold(spec, &*self.secrets));
        }
        Ok(fleets)
    }
}

#[async_trait]
impl PlanStore for Fleets {
    async fn load(&self) -> Result<Vec<AppFleet>, reconcile::Source> {
        Ok(Self::load(self).await?)
    }

    async fn store(&self, fleet: &AppFleet, plan: &Plan, now: Time) -> Result<Stored, reconcile::Source> {
        match self.db.store_plan(&fleet.app, fleet.generation, plan, now).await {
            Ok(nodes) => Ok(Stored::Yes(nodes)),
            Err(error) if error.is_conflict() => Ok(Stored::Conflict),
            Err(error) => Err(error.into()),
        }
    }
}

impl reconcile::Agents for Agents {
    fn liveness(&self, node: NodeId) -> Liveness {
        Self::liveness(self, node)
    }

    fn stored(&self, node: NodeId) -> u64 {
        Self::stored(self, node)
    }

    fn observed(&self, app: &AppName) -> BTreeMap<Place, Observed> {
        Self::observed(self, app)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        Self::changes(self)
    }

    fn wake(&self, node: NodeId) {
        Self::wake(self, node);
    }
}

/// Whom a new configuration concerns.
pub(super) struct Concerned {
    pub(super) agents: Agents,
    pub(super) waker: Arc<Notify>,
}

impl configuration::Told for Concerned {
    fn told(&self, nodes: &BTreeSet<NodeId>) {
        for node in nodes {
            self.agents.wake(*node);
        }
        self.waker.notify_one();
    }
}

/// What the API sees behind the database.
pub(super) struct Behind {
    pub(super) db: Db,
    pub(super) fleets: Fleets,
    pub(super) agents: Agents,
    pub(super) source: Arc<dyn releases::Source>,
    pub(super) waker: Arc<Notify>,
    pub(super) waiting: watch::Receiver<Arc<WaitingByApp>>,
    /// Logos that are read at a time: streams are for people who work.
    pub(super) logos: Semaphore,
}

#[async_trait]
impl Backend for Behind {
    async fn fleets(&self) -> Result<Vec<AppFleet>, DbError> {
        let mut fleets = self.fleets.load().await?;
        for fleet in &mut fleets {
            for (id, node) in &mut fleet.nodes {
                node.liveness = self.agents.liveness(*id);
                node.stored = self.agents.stored(*id);
            }
            fleet.observed = self.agents.observed(&fleet.app);
            for seen in fleet.observed.values_mut() {
                let by_our_clock = [&mut seen.ready_since, &mut seen.next_start_at];
                for at in by_our_clock.into_iter().flatten().chain([&mut seen.reported_at]) {
                    *at = self.agents.shown(*at);
                }
            }
        }
        Ok(fleets)
    }

    fn waiting(&self, app: &AppName) -> Vec<String> {
        let waiting = self.waiting.borrow();
        waiting.get(app).into_iter().flatten().map(ToString::to_string).collect()
    }

    fn sight(&self, node: NodeId) -> NodeSight {
        let report = self.agents.host_sample(node);
        let liveness = self.agents.liveness(node);
        let now = report.filter(|_| liveness != Liveness::Lost);
        NodeSight {
            liveness,
            heard_at: self.agents.heard_at(node),
            usage: now.as_ref().map(|report| hosts::usage(&report.sample)),
            host: now.as_ref().and_then(|report| hosts::detail(&report.sample)),
            limits: now
                .iter()
                .flat_map(|report| report.limits.iter().map(|it| (it.clone(), self.agents.shown(report.at))))
                .map(|(limit, at)| hosts::limit(limit, at))
                .collect(),
            loads: now
                .map(|HostReport { replicas, .. }| replicas)
                .unwrap_or_default()
                .into_iter()
                .map(load)
                .collect(),
            clock_ahead_ms: self.agents.clock_ahead_ms(node),
            agent_started: self.agents.agent_started(node),
            vm_samples_dropped: self.agents.vm_samples_dropped(node),
        }
    }

    fn host_history(&self, node: NodeId, since: Option<Time>) -> Vec<(Time, HostPoint)> {
        self.agents.host_history(node, since)
    }

    fn vm_history(&self, app: &AppName, place: Place, since: Option<Time>) -> VmPast {
        self.agents.vm_history(app, place, since)
    }

    fn vm(&self, app: &AppName, place: Place) -> Option<VmPoint> {
        self.agents.vm(app, place)
    }

    fn counted(&self, app: &AppName, place: Place) -> Option<Counted> {
        self.agents.counted(app, place)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.agents.changes()
    }

    fn plan_now(&self) {
        self.waker.notify_one();
    }

    fn cut(&self, node: NodeId) {
        self.agents.cut(node);
    }

    fn restart_agent(&self, node: NodeId) -> bool {
        self.agents.restart_agent(node)
    }

    fn ca_fingerprint(&self) -> Digest {
        self.agents.fingerprint()
    }

    async fn seek(
        &self,
        app: &AppName,
        language: Language,
        version: &Version,
        now: Time,
    ) -> Result<ReleaseKey, SeekError> {
        let from = (&self.db, self.source.as_ref());
        releases::record_unnamed(from, app, language, version, now).await
    }

    async fn follow_log(&self, node: NodeId, what: pb::FollowLog) -> Result<LogChunks, StreamError> {
        let kind = pb::open_stream::Kind::FollowLog(what);
        let opened = self.agents.open_stream(node, kind).await.map_err(unopened)?;
        let chunks = stream::unfold(opened, |mut opened| async {
            let chunk = opened.next().await?;
            Some((chunk.map_err(|error| StreamError::Refused(error.to_string())), opened))
        });
        Ok(chunks.boxed())
    }

    async fn evaluate(&self, node: NodeId, what: pb::Evaluate) -> Result<UnderWay, StreamError> {
        let kind = pb::open_stream::Kind::Evaluate(what);
        let opened = self.agents.open_stream(node, kind).await.map_err(unopened)?;
        let answer = async {
            let answer = opened.whole(MAX_ANSWER).await.map_err(|error| chain(&error))?;
            let evaluated = pb::Evaluated::from_bytes(&answer).filter(|it| it.outcome.is_some());
            evaluated.ok_or_else(|| "the node's agent went before its answer was whole".to_owned())
        };
        Ok(answer.boxed())
    }

    async fn read_logo(&self, node: NodeId, what: pb::ReadLogo) -> Result<pb::Logo, StreamError> {
        let _place = self.logos.try_acquire().map_err(|_| StreamError::TooMany)?;
        let kind = pb::open_stream::Kind::ReadLogo(what);
        let opened = self.agents.open_stream(node, kind).await.map_err(unopened)?;
        let refused = |why: String| StreamError::Refused(why);
        // Beside the picture there is what it is.
        let whole = timeout(PICTURE_WITHIN, opened.whole(LARGEST_LOGO + 1_024)).await;
        let whole = whole.map_err(|_| refused("its picture did not come in time".to_owned()))?;
        let whole = whole.map_err(|error| refused(chain(&error)))?;
        pb::Logo::from_bytes(&whole).ok_or_else(|| refused("what came is no picture".to_owned()))
    }
}

fn unopened(error: OpenStreamError) -> StreamError {
    match error {
        OpenStreamError::NotConnected => StreamError::NotConnected,
        OpenStreamError::TimedOut => StreamError::TimedOut,
        OpenStreamError::Refused(why) => StreamError::Refused(why),
        OpenStreamError::TooMany => StreamError::TooMany,
    }
}

fn load<K>((place, load): (K, ReplicaLoad)) -> (K, Usage) {
    let ReplicaLoad { cpu_percent, memory_bytes, pids, memory_limit_bytes } = load;
    (place, Usage { cpu_percent, memory_bytes, pids, memory_limit_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SecretsAdapter, SecretsFrom};
    use crate::db::{ApplicationsDiff, NewApplication, Source as Owner};
    use crate::spec::{EnvEntry, EnvValue};

    fn opener(variables: &[(&str, &str)]) -> Opener {
        let variables =
            variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let from = SecretsFrom { adapter: SecretsAdapter::Env, path: None };
        Opener {
            vault: Arc::new(Vault::new(&"key".repeat(30).into()).unwrap()),
            secrets: Arc::new(Secrets::load(&from, &variables).unwrap()),
        }
    }

    #[test]
    fn a_fingerprint_follows_what_is_behind_a_name_and_shows_nothing_of_it() {
        let mut spec = AppSpec::new("shop".parse().unwrap(), Language::Elixir);
        for key in ["TOKEN", "URL"] {
            let value = EnvValue::FromSecret(format!("prod/{key}"));
            spec.env.push(EnvEntry { key: key.to_owned(), value });
        }
        let sealed = apply::Secrets::new_cookie(&opener(&[]), &spec.name).unwrap();
        let of = |variables: &[(&str, &str)]| apply::Secrets::fingerprint(&opener(variables), &spec, &sealed);
        let first = of(&[("TOKEN", "ab"), ("URL", "c")]).unwrap();
        assert_eq!(of(&[("TOKEN", "ab"), ("URL", "c")]).unwrap(), first);
        assert_ne!(of(&[("TOKEN", "ab"), ("URL", "d")]).unwrap(), first);
        assert_ne!(of(&[("TOKEN", "a"), ("URL", "bc")]).unwrap(), first);
        let cookie = [("TOKEN", "ab"), ("URL", "c"), ("DEPLOYEX_ERLANG_COOKIE", "shared")];
        assert_ne!(of(&cookie).unwrap(), first);
        assert_eq!(
            of(&[("TOKEN", "ab")]).unwrap_err(),
            "its variable URL cannot be had: the variable URL, for from_secret prod/URL, is not set where deployex runs"
        );
    }

    #[tokio::test]
    async fn a_fleet_says_of_which_variable_its_nodes_cannot_be_told() {
        let database = crate::db::tests::fixture::TestDb::sqlite().await;
        let mut spec = AppSpec::new("shop".parse().unwrap(), Language::Elixir);
        let value = EnvValue::FromSecret("prod/TOKEN".to_owned());
        spec.env.push(EnvEntry { key: "TOKEN".to_owned(), value });
        let put = vec![NewApplication { spec, source: Owner::Yaml, cookie: Vec::new() }];
        let diff = ApplicationsDiff { put, ..ApplicationsDiff::default() };
        database.db.put_applications(diff, Time(1)).await.unwrap();
        let untold = async |variables: &[(&str, &str)]| {
            let secrets = Arc::new(opener(variables)) as Arc<dyn assign::Secrets>;
            let fleets = Fleets { db: database.db.clone(), secrets }.load().await.unwrap();
            fleets[0].untold.clone()
        };
        let missing = "its variable TOKEN cannot be had: the variable TOKEN, for from_secret prod/TOKEN, is not set where deployex runs";
        assert_eq!(untold(&[]).await.as_deref(), Some(missing));
        assert_eq!(untold(&[("TOKEN", "x")]).await, None);
    }
}
