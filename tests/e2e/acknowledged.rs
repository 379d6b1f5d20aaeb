//! The control plane is killed again and again while a client writes: what it acknowledged with a 2xx is there afterwards,
//! and no rollout is stuck.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::ids::TokenId;
use proto::nodes::JoinToken;
use proto::state::Role;
use proto::users::{CreatedToken, NewToken, Token};
use rand::Rng;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::json;
use tests::database::Engine;
use tests::programs::{Agent, ControlPlane, Joining, Setup};
use tests::release::Bucket;
use tests::wait::{Seen, eventually};
use tests::{on_both_engines, ports};
use tokio::task::JoinSet;
use xtask::fixtures::Sample;

const APP: &str = "gleam_demo";
const VERSIONS: [&str; 2] = ["0.1.0", "0.2.0"];
const KILLS: u32 = 30;
/// So many join at least where so many tokens were given out.
const HOSTS: usize = 20;

on_both_engines!(what_was_acknowledged_outlives_thirty_kills_and_no_rollout_is_stuck);

/// What the client was told is done. Of each thing only one write is under way at a time, so what was told last must be so,
/// unless the write under way took its place unseen.
#[derive(Debug, Default)]
struct Told {
    /// Made, and whether revoking them was acknowledged (`Some(true)`) or only asked for (`None`).
    tokens: BTreeMap<TokenId, Option<bool>>,
    join_tokens: Vec<String>,
    /// The version that was acknowledged, and those asked for since.
    wanted: Option<&'static str>,
    perhaps_wanted: BTreeSet<&'static str>,
    writes: usize,
}

struct Writer {
    http: Client,
    base: String,
    token: String,
    told: Arc<Mutex<Told>>,
}

impl Writer {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/api/v1{path}", self.base)).bearer_auth(&self.token)
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }

    /// A token made, and every other one revoked.
    async fn tokens(&self, nth: usize) -> reqwest::Result<()> {
        let wish = NewToken {
            name: format!("{nth}-{}", rand::random::<u64>()),
            role: Role::Viewer,
            lifetime_ms: None,
        };
        let answer = self.request(Method::POST, "/tokens").json(&wish).send().await?.error_for_status()?;
        let id = answer.json::<CreatedToken>().await?.token.id;
        self.told().tokens.insert(id, Some(false));
        self.told().writes += 1;
        if nth.is_multiple_of(2) {
            self.told().tokens.insert(id, None);
            self.request(Method::DELETE, &format!("/tokens/{id}")).send().await?.error_for_status()?;
            self.told().tokens.insert(id, Some(true));
            self.told().writes += 1;
        }
        Ok(())
    }

    async fn join_token(&self) -> reqwest::Result<()> {
        let answer = self.request(Method::POST, "/join-tokens").json(&json!({})).send().await?;
        let token: JoinToken = answer.error_for_status()?.json().await?;
        let mut told = self.told();
        told.join_tokens.push(token.token);
        told.writes += 1;
        Ok(())
    }

    async fn deploy(&self, nth: usize) -> reqwest::Result<()> {
        let version = VERSIONS[nth % VERSIONS.len()];
        self.told().perhaps_wanted.insert(version);
        let request = self.request(Method::POST, &format!("/applications/{APP}/deploy"));
        request.json(&json!({ "version": version })).send().await?.error_for_status()?;
        let mut told = self.told();
        told.wanted = Some(version);
        told.perhaps_wanted.clear();
        told.writes += 1;
        Ok(())
    }
}

/// Three clients, each of which writes things of its own kind until it is dropped. A write that fails is one that was not
/// acknowledged.
fn write(writer: &Arc<Writer>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for kind in 0..3 {
        let writer = Arc::clone(writer);
        tasks.spawn(async move {
            for nth in 0.. {
                let _ = match kind {
                    0 => writer.tokens(nth).await,
                    1 => writer.join_token().await,
                    _ => writer.deploy(nth).await,
                };
                // Nobody may starve the others while the address refuses at once.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }
    tasks
}

fn is_there(control_plane: &ControlPlane, told: &Mutex<Told>) {
    let tokens: Vec<Token> = control_plane.ask(&["token", "list"]).unwrap();
    let found: BTreeSet<TokenId> = tokens.iter().map(|token| token.id).collect();
    let wanted = control_plane.application(APP).unwrap().summary.wanted;
    let wanted = wanted.map(|key| key.version.to_string());
    let told = told.lock().unwrap();
    for (id, revoked) in &told.tokens {
        if let Some(revoked) = revoked {
            assert_eq!(
                found.contains(id),
                !revoked,
                "token {id}, of which {revoked} was acknowledged to be revoked"
            );
        }
    }
    if let Some(acknowledged) = told.wanted {
        let wanted = wanted.as_deref().unwrap_or_default();
        assert!(
            wanted == acknowledged || told.perhaps_wanted.contains(wanted),
            "{acknowledged} was acknowledged, and {wanted} is wanted"
        );
    }
}

async fn what_was_acknowledged_outlives_thirty_kills_and_no_rollout_is_stuck(engine: Engine) {
    let bucket = Bucket::new();
    let port = ports::free(2);
    let applications = format!(
        "  - name: {APP}\n    language: gleam\n    replicas: 1\n    \
         replica_ports: [{{ key: PORT, base: {port} }}]\n    deploy_schedule_interval_ms: 100\n    \
         deploy: {{ strategy: stop_first, stable_after_ms: 100, stop_grace_ms: 5000, drain_ms: 0 }}\n"
    );
    let mut control_plane =
        ControlPlane::start_with(&bucket, &applications, Setup { engine, ..Setup::default() }).await;
    let _agent = Agent::join(&control_plane, "first").await;
    for version in VERSIONS {
        bucket.publish(Sample::Gleam, version).await;
        control_plane.settles_on(APP, version).await;
    }
    let admin: CreatedToken = control_plane.ask(&["token", "create", "writer", "--role", "admin"]).unwrap();
    let told = Arc::new(Mutex::new(Told::default()));
    let writer = Arc::new(Writer {
        http: tests::http::client(),
        base: control_plane.url(""),
        token: admin.secret,
        told: Arc::clone(&told),
    });

    for _ in 0..KILLS {
        let writes = told.lock().unwrap().writes;
        let mut writing = write(&writer);
        eventually("some writes", || {
            let now = told.lock().unwrap().writes;
            std::future::ready(if now > writes + 3 { Seen::Done(()) } else { Seen::NotYet(format!("{now}")) })
        })
        .await;
        // At any moment of a write, not always at the same.
        tokio::time::sleep(Duration::from_micros(rand::rng().random_range(0..60_000))).await;
        control_plane.kill();
        writing.shutdown().await;
        control_plane.resume().await;
        is_there(&control_plane, &told);
    }

    // The join tokens that were given out let hosts in: of all of them one in so many, the first and the last included.
    let tokens = std::mem::take(&mut told.lock().unwrap().join_tokens);
    let step = (tokens.len() / HOSTS).max(1);
    let sample = tokens.iter().step_by(step).chain(tokens.last().filter(|_| (tokens.len() - 1) % step != 0));
    for (nth, token) in sample.enumerate() {
        let joining = Joining {
            address: control_plane.agents_address(),
            token,
            name: &format!("joined-{nth}"),
            labels: &[],
        };
        Agent::new().enrol(joining).await.unwrap_or_else(|error| panic!("{}", error.said));
        control_plane.ask::<serde_json::Value>(&["node", "remove", &format!("joined-{nth}")]).unwrap();
    }
    // And whatever is wanted in the end comes to be.
    let wanted = control_plane.application(APP).unwrap().summary.wanted.unwrap().version.to_string();
    let after = control_plane.settles_on(APP, &wanted).await;
    assert!(after.ghosts.is_empty(), "{after:#?}");
    let said =
        control_plane.command_line().run(&["deploy", APP, other(&wanted), "--wait", "--timeout", "60"]);
    assert_eq!(said.status, 0, "{said:?}");
}

fn other(version: &str) -> &'static str {
    VERSIONS.into_iter().find(|it| *it != version).unwrap()
}
