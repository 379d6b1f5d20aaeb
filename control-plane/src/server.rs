//! The control plane as a whole: starts its parts in order, and stops them in the opposite one.
//!
//! ```text
//!   releases ──wishes──▶ db ◀──plans── reconcile ──wake──▶ agents ◀──mTLS── hosts
//!                        ▲                ▲                   │
//!      console, CLI ──▶ api ──────────────┘◀─────reports──────┘
//! ```

mod edges;
mod heard;
mod notices;
mod sockets;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use self::edges::{Behind, Opener, Relay};
use self::sockets::Sockets;
use crate::agents::pki::{Authority, PkiError, Root};
use crate::agents::{Agents, CERTIFICATE_LIFE, Edges, LOOK_AGAIN, Settings as AgentSettings};
use crate::api::{self, Api, Live, Parts, Settings};
use crate::assign::Assignments;
use crate::auth::first::{self, FirstSignIn, FirstSignInError};
use crate::auth::password::Passwords;
use crate::auth::principal::LocalAdmins;
use crate::auth::throttle::Throttle;
use crate::clock::Clock;
use crate::config::apply::{ApplyError, apply};
use crate::config::{AgentsAddress, Config, ReleaseAdapter};
use crate::db::{Db, DbError, NewAuthority};
use crate::error::chain;
use crate::home::{Home, HomeError};
use crate::listen::ListenError;
use crate::reconcile::Reconciler;
use crate::releases::{self, Bucket, FolderSource, UnavailableSource};
use crate::secrets::Secrets;
use crate::telemetry::Metrics;
use crate::vault::{Purpose, Vault, VaultError};

const AGENTS_KIND: &str = "agents";
/// Notices of agents that are not recorded yet; beyond it they are dropped and said in the log.
const NOTICES: usize = 4_096;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error("the key for what is kept sealed cannot be had")]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("the configuration could not be put in force")]
    Apply(#[from] ApplyError),
    #[error("the agents' certificate authority cannot be used")]
    Pki(#[from] PkiError),
    #[error("the key of the agents' certificate authority is no text")]
    AuthorityKey(#[source] std::string::FromUtf8Error),
    #[error(transparent)]
    FirstSignIn(#[from] FirstSignInError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("cannot listen for agents on {address}; is another program using it?")]
    Agents {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

/// The control plane.
pub struct Server;

/// A control plane that answers.
pub struct Running {
    pub console: SocketAddr,
    pub agents: SocketAddr,
    pub socket: PathBuf,
    /// What somebody has to be told of signing in.
    pub first_sign_in: FirstSignIn,
    tasks: TaskTracker,
    db: Db,
    home: Home,
}

impl Running {
    /// Until everything has stopped, which begins when the token given at the start is cancelled.
    pub async fn wait(self) {
        self.tasks.close();
        self.tasks.wait().await;
        if let Err(error) = self.db.close().await {
            tracing::warn!(error = chain(&error), "the database was not closed in order");
        }
        drop(self.home);
    }
}

impl Server {
    /// Starts everything; on return it listens. Cancelling stops it. What cannot be had to itself (the data folder, ports) is
    /// taken first, so that a start that may not run changes nothing.
    pub async fn start(
        config: Config,
        secrets: Secrets,
        cancel: CancellationToken,
    ) -> Result<Running, StartError> {
        let home = Home::take(&config.data_dir)?;
        let sockets = Sockets::bind(&config, &home).await?;
        let key_file = home.key_file();
        // Beside SQLite the key may lie where the data lies; a PostgreSQL elsewhere must not be read by who has its backup.
        let key_file = config.database_url.is_sqlite().then_some(key_file.as_path());
        let vault = Arc::new(Vault::open(secrets.secret_key_base.as_ref(), key_file)?);
        let (clock, secrets) = (Clock::start(), Arc::new(secrets));
        let url = config.database_url.expose();
        let db = if config.demo { Db::open_for_demo(url).await? } else { Db::open_for_real(url).await? };
        let passwords = Passwords::default();
        let opener = Arc::new(Opener { vault: vault.clone(), secrets: secrets.clone() });
        apply(&config, &db, opener.as_ref(), clock.now()).await?;
        let first_sign_in =
            first::prepare(&db, &passwords, config.demo, secrets.admin.as_ref(), clock.now()).await?;
        let source = source(&config);

        let told = config.agents_address(&machine_name());
        let dialled = (!told.address.host.is_empty()).then(|| told.address.host.clone());
        let tasks = TaskTracker::new();
        let (notices, received) = mpsc::channel(NOTICES);
        let agents = Agents::new(
            AgentSettings {
                authority: authority(&db, &vault, clock).await?,
                names: dialled.iter().cloned().chain(config.console.hostname.clone()).collect(),
                host: host_settings(&config),
                certificate_life: CERTIFICATE_LIFE,
                look_again: LOOK_AGAIN,
            },
            Edges {
                registry: Arc::new(db.clone()),
                assignments: Arc::new(Assignments::new(db.clone(), opener)),
                releases: Arc::new(Relay { db: db.clone(), source: source.clone() }),
                notices,
            },
            clock,
        );
        let reconciler = Reconciler::new(Arc::new(db.clone()), Arc::new(agents.clone()), clock);
        let (waker, waiting) = (reconciler.waker(), reconciler.waiting());
        let behind = Behind {
            db: db.clone(),
            agents: agents.clone(),
            source: source.clone(),
            waker: waker.clone(),
            waiting,
        };
        let api = Api::new(Parts {
            db: db.clone(),
            backend: Arc::new(behind),
            settings: api_settings(&config, &secrets, told),
            local: LocalAdmins::of_this_process(),
            clock,
            metrics: Metrics::default(),
            passwords,
            throttle: Mutex::new(Throttle::default()),
            live: Live::default(),
            cancel: cancel.clone(),
            tasks: tasks.clone(),
        });

        let Sockets { console, console_address, local, agents: listener, agents_address } = sockets;
        let socket = home.socket();
        let router = api::router(&api);
        tasks.spawn(console.serve(router.clone(), cancel.clone()));
        tasks.spawn(local.serve(router, cancel.clone()));
        tasks.spawn(api::show_live(api.clone(), cancel.clone()));
        tasks.spawn(reconciler.run(cancel.clone()));
        tasks.spawn(notices::record(db.clone(), received, clock));
        tasks.spawn(heard::remember(db.clone(), agents.clone(), cancel.clone()));
        let stop = cancel.clone();
        tasks.spawn(async move {
            if let Err(error) = agents.serve(listener, stop.clone()).await {
                tracing::error!(error = chain(&error), "agents can no longer be served; stopping");
                stop.cancel();
            }
        });
        let (bucket, applications) =
            (Bucket { source, db: db.clone(), clock, wake: waker }, config.applications);
        let stop = cancel.clone();
        tasks.spawn(async move { releases::watch(bucket, &applications, stop).await });
        tasks.spawn(notices::forget_old(db.clone(), clock, cancel));
        Ok(Running {
            console: console_address,
            agents: agents_address,
            socket,
            first_sign_in,
            tasks,
            db,
            home,
        })
    }
}

fn source(config: &Config) -> Arc<dyn releases::Source> {
    let (bucket, environment) = (&config.releases.bucket, config.releases.account_name.clone());
    match config.releases.adapter {
        ReleaseAdapter::Local => Arc::new(FolderSource::new(PathBuf::from(bucket), environment)),
        // Each application says so; what runs goes on running.
        adapter @ (ReleaseAdapter::S3 | ReleaseAdapter::GcpStorage) => {
            Arc::new(UnavailableSource::new(adapter.word(), environment))
        }
    }
}

/// The root that signs agents' certificates: made at the very first start.
async fn authority(db: &Db, vault: &Vault, clock: Clock) -> Result<Authority, StartError> {
    let mut known = db.authorities(AGENTS_KIND).await?;
    if known.is_empty() {
        let root = Root::generate(clock.now())?;
        let sealed = vault.seal(Purpose::Authorities, AGENTS_KIND, root.key_pem.as_bytes())?;
        let new = NewAuthority {
            kind: AGENTS_KIND.to_owned(),
            certificate_pem: root.certificate_pem.clone(),
            encrypted_key: sealed,
            created_at: clock.now(),
        };
        known = db.first_authority(&new).await?;
    }
    let signing = known.iter().position(|it| it.retired_at.is_none()).unwrap_or_default();
    let signs = known.remove(signing);
    let key = vault.unseal(Purpose::Authorities, AGENTS_KIND, &signs.encrypted_key)?;
    let key_pem = String::from_utf8(key.to_vec()).map_err(StartError::AuthorityKey)?;
    let root = Root { certificate_pem: signs.certificate_pem, key_pem: Zeroizing::new(key_pem) };
    let others: Vec<String> = known.into_iter().map(|it| it.certificate_pem).collect();
    Ok(Authority::new(&root, &others)?)
}

/// As the kernel has it.
fn machine_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn host_settings(config: &Config) -> proto::pb::HostSettings {
    let text = |path: &Option<PathBuf>| path.as_ref().map(|it| it.display().to_string()).unwrap_or_default();
    proto::pb::HostSettings {
        var_path: text(&config.hosts.var_path),
        log_path: text(&config.hosts.log_path),
        monitored_app_log_path: text(&config.hosts.monitored_app_log_path),
    }
}

fn api_settings(config: &Config, secrets: &Secrets, agents_address: AgentsAddress) -> Settings {
    let configured = secrets.admin.is_some().then_some("DEPLOYEX_ADMIN_HASHED_PASSWORD");
    Settings {
        admin_password_from: if config.demo { Some("serve --demo") } else { configured },
        environment: config.releases.account_name.clone(),
        demo: config.demo,
        console_served: config.console.served,
        trusted_proxies: config.console.trusted_proxies.clone(),
        agents_address,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use proto::state::Language;

    use super::*;
    use crate::config::DatabaseUrl;
    use crate::spec::AppSpec;

    fn config(folder: &Path) -> Config {
        let mut config = Config::new(&folder.join("data"));
        config.console.port = 0;
        config.agents.bind = std::net::Ipv4Addr::LOCALHOST.into();
        config.agents.port = 0;
        config.releases.bucket = folder.join("bucket").display().to_string();
        config
    }

    async fn start(config: Config, cancel: &CancellationToken) -> Result<Running, StartError> {
        let secrets = Secrets::load(&config.secrets, &BTreeMap::new()).unwrap();
        Server::start(config, secrets, cancel.clone()).await
    }

    async fn get(url: &str) -> String {
        drop(rustls::crypto::ring::default_provider().install_default());
        reqwest::get(url).await.unwrap().text().await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_starts_answers_stops_and_starts_again_on_the_same_data() {
        let folder = tempfile::tempdir().unwrap();
        for first in [true, false] {
            let cancel = CancellationToken::new();
            let running = start(config(folder.path()), &cancel).await.unwrap();
            assert_eq!(matches!(running.first_sign_in, FirstSignIn::OneTime(_)), first);
            assert!(get(&format!("http://{}/health", running.console)).await.contains("\"ok\""));
            let socket = running.socket.clone();
            let client = reqwest::Client::builder().unix_socket(socket.clone()).build().unwrap();
            let me = client.get("http://localhost/api/v1/me").send().await.unwrap().text().await.unwrap();
            assert!(me.contains("\"admin\"") && me.contains("\"local:"), "{me}");
            let overview = client.get("http://localhost/api/v1/fleet").send().await.unwrap();
            assert_eq!(overview.status().as_u16(), 200);
            drop((client, overview));
            cancel.cancel();
            running.wait().await;
            assert!(!socket.exists());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_bucket_that_cannot_be_read_yet_is_said_of_each_application_and_stops_nothing() {
        let folder = tempfile::tempdir().unwrap();
        for adapter in [ReleaseAdapter::S3, ReleaseAdapter::GcpStorage] {
            let mut config = config(folder.path());
            config.releases.adapter = adapter;
            let app = AppSpec::new("shop".parse().unwrap(), Language::Elixir);
            (config.applications, config.names_applications) = (vec![app], true);
            let listed = config.not_yet_in_force().join("; ");
            assert!(listed.contains("release_adapter is not yet in force"), "{listed}");
            let cancel = CancellationToken::new();
            let running = start(config, &cancel).await.unwrap();
            drop(rustls::crypto::ring::default_provider().install_default());
            let client = reqwest::Client::builder().unix_socket(running.socket.clone()).build().unwrap();
            let named = format!("releases cannot be fetched from {}", adapter.word());
            loop {
                let app = client.get("http://localhost/api/v1/applications/shop").send().await.unwrap();
                let app: proto::apps::Application = app.json().await.unwrap();
                if app.release_fault.is_some_and(|fault| fault.text.starts_with(&named)) {
                    assert!(app.summary.needs_attention && app.summary.sentence.starts_with(&named));
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            drop(client);
            cancel.cancel();
            running.wait().await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_of_them_cannot_share_a_data_folder() {
        let folder = tempfile::tempdir().unwrap();
        let cancel = CancellationToken::new();
        let running = start(config(folder.path()), &cancel).await.unwrap();
        let second = start(config(folder.path()), &cancel).await;
        assert!(matches!(second, Err(StartError::Home(HomeError::Taken { .. }))));
        cancel.cancel();
        running.wait().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_start_that_finds_a_port_taken_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let (mut console, mut agents) = (config(folder.path()), config(folder.path()));
        (console.console.port, agents.agents.port) = (port, port);
        for config in [console, agents] {
            assert!(start(config, &CancellationToken::new()).await.is_err());
            let names = std::fs::read_dir(folder.path().join("data/control-plane")).unwrap();
            let names: Vec<_> = names.map(|it| it.unwrap().file_name()).collect();
            assert_eq!(names, ["lock"]);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_demo_does_not_open_what_was_used_for_real() {
        let folder = tempfile::tempdir().unwrap();
        let cancel = CancellationToken::new();
        let running = start(config(folder.path()), &cancel).await.unwrap();
        cancel.cancel();
        running.wait().await;
        let mut demo = config(folder.path());
        demo.demo = true;
        let refused = start(demo, &CancellationToken::new()).await.err().unwrap();
        assert!(matches!(refused, StartError::Db(DbError::NotADemos)), "{refused}");
        let cancel = CancellationToken::new();
        let running = start(config(folder.path()), &cancel).await.unwrap();
        assert!(matches!(running.first_sign_in, FirstSignIn::Unchanged), "admin's password is as it was");
        cancel.cancel();
        running.wait().await;
    }

    #[tokio::test]
    async fn a_key_must_be_given_where_the_database_is_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        config.database_url = DatabaseUrl::new("postgres://localhost/deployex".to_owned());
        let started = start(config, &CancellationToken::new()).await;
        assert!(matches!(started, Err(StartError::Vault(VaultError::Missing))));
    }
}
