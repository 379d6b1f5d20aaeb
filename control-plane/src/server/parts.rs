//! The parts of the control plane: made from configuration and database, joined to each other, none of them running yet.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::StartError;
use super::edges::{Behind, Concerned, Fleets, Opener};
use crate::agents::pki::Authority;
use crate::agents::{
    self, Agents, ApplicationRoots, CERTIFICATE_LIFE, Edges, LOOK_AGAIN, Notice, Settings as AgentSettings,
};
use crate::api::{Api, Live, Parts as ApiParts, Settings as ApiSettings};
use crate::assign::Assignments;
use crate::auth::first::{self, FirstSignIn};
use crate::auth::password::Passwords;
use crate::auth::principal::LocalAdmins;
use crate::auth::throttle::Throttle;
use crate::clock::Clock;
use crate::config::{AgentsAddress, Config, ReleaseAdapter};
use crate::configuration::start::Start;
use crate::configuration::{Began, Configuration, NewConfiguration};
use crate::db::Db;
use crate::home::Home;
use crate::next_start::NextStart;
use crate::reconcile::Reconciler;
use crate::releases::{self, Bucket, FolderSource, UnavailableSource};
use crate::secrets::Secrets;
use crate::telemetry::Metrics;
use crate::vault::{Vault, VaultError};

/// Read at a time, over all agents.
const LOGOS: usize = 8;

/// Notices of agents that are not recorded yet; beyond it they are dropped and said in the log.
const NOTICES: usize = 4_096;

pub(super) struct Parts {
    pub db: Db,
    pub clock: Clock,
    pub agents: Agents,
    pub notices: mpsc::Receiver<Notice>,
    pub reconciler: Reconciler,
    pub api: Api,
    pub configuration: Configuration,
    pub bucket: Bucket,
    pub first_sign_in: FirstSignIn,
}

impl Parts {
    /// Opens the database and puts the configuration in force. `running` is what tells everything to stop, and what runs.
    pub(super) async fn join(
        start: &Start,
        secrets: Secrets,
        home: &Home,
        next_start: NextStart,
        running: (CancellationToken, TaskTracker),
    ) -> Result<Self, StartError> {
        let config = &start.config;
        let (clock, secrets, passwords) = (Clock::start(), Arc::new(secrets), Passwords::default());
        let vault = Arc::new(vault(config, &secrets, home)?);
        let opener = Arc::new(Opener { vault: vault.clone(), secrets: secrets.clone() });
        let url = config.database_url.expose();
        let db = if config.demo { Db::open_for_demo(url).await? } else { Db::open_for_real(url).await? };
        start.apply(&db, &vault, opener.as_ref(), clock).await?;
        let first_sign_in =
            first::prepare(&db, &passwords, config.demo, secrets.admin.as_ref(), clock.wall()).await?;

        let source = source(config);
        let told = config.agents_address(&machine_name());
        let authority = agents::authority(&db, &vault, clock.wall()).await?;
        let (noticed, notices) = mpsc::channel(NOTICES);
        let edges = Edges {
            registry: Arc::new(db.clone()),
            assignments: Arc::new(Assignments::new(db.clone(), opener.clone())),
            releases: Arc::new(releases::Relay::new(db.clone(), source.clone())),
            peers: Arc::new(ApplicationRoots::new(db.clone(), vault.clone())),
            notices: noticed,
        };
        let agents = Agents::new(agent_settings(config, &told, authority), edges, clock);
        let fleets = Fleets { db: db.clone(), secrets: opener.clone() };
        let reconciler = Reconciler::new(Arc::new(fleets.clone()), Arc::new(agents.clone()), clock);
        let wake = reconciler.waker();
        let behind = Behind {
            db: db.clone(),
            fleets,
            agents: agents.clone(),
            source: source.clone(),
            waker: wake.clone(),
            waiting: reconciler.waiting(),
            logos: Semaphore::new(LOGOS),
        };
        let configuration = Configuration::new(NewConfiguration {
            db: db.clone(),
            clock,
            vault: vault.clone(),
            secrets: opener,
            told: Arc::new(Concerned { agents: agents.clone(), waker: wake.clone() }),
            reading: next_start.reading().clone(),
            file: config.file.clone(),
            text: start.file.clone(),
            began: Began::with(config),
        });
        let (cancel, tasks) = running;
        let api = Api::new(ApiParts {
            db: db.clone(),
            backend: Arc::new(behind),
            settings: api_settings(config, &secrets, told),
            configuration: configuration.clone(),
            local: LocalAdmins::of_this_process(),
            clock,
            started_at: clock.wall(),
            metrics: Metrics::default(),
            passwords,
            throttle: Mutex::new(Throttle::default()),
            live: Live::default(),
            cancel,
            tasks,
            begin_anew: CancellationToken::new(),
            next_start,
        });
        let bucket = Bucket { source, db: db.clone(), clock, wake };
        Ok(Self { db, clock, agents, notices, reconciler, api, configuration, bucket, first_sign_in })
    }
}

/// Beside SQLite the key may lie where the data lies; a PostgreSQL elsewhere must not be read by who has its backup.
pub(super) fn vault(config: &Config, secrets: &Secrets, home: &Home) -> Result<Vault, VaultError> {
    let key_file = home.key_file();
    let key_file = config.database_url.is_sqlite().then_some(key_file.as_path());
    Vault::open(secrets.secret_key_base.as_ref(), key_file)
}

fn agent_settings(config: &Config, told: &AgentsAddress, authority: Authority) -> AgentSettings {
    let dialled = (!told.address.host.is_empty()).then(|| told.address.host.clone());
    AgentSettings {
        authority,
        names: dialled.into_iter().chain(config.console.hostname.clone()).collect(),
        host: host_settings(config),
        certificate_life: CERTIFICATE_LIFE,
        look_again: LOOK_AGAIN,
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

/// As the kernel has it.
pub(super) fn machine_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn host_settings(config: &Config) -> proto::pb::HostSettings {
    let text = |path: &Option<PathBuf>| path.as_ref().map(|it| it.display().to_string()).unwrap_or_default();
    proto::pb::HostSettings {
        var_path: text(&config.hosts.var_path),
        log_path: text(&config.hosts.log_path),
        monitored_app_log_path: text(&config.hosts.monitored_app_log_path),
        otp_tls_certificates: text(&config.hosts.otp_tls_certificates),
    }
}

fn api_settings(config: &Config, secrets: &Secrets, agents_address: AgentsAddress) -> ApiSettings {
    let configured = secrets.admin.is_some().then_some("DEPLOYEX_ADMIN_HASHED_PASSWORD");
    ApiSettings {
        admin_password_from: if config.demo { Some("serve --demo") } else { configured },
        environment: config.releases.account_name.clone(),
        demo: config.demo,
        console_served: config.console.served,
        trusted_proxies: config.console.trusted_proxies.clone(),
        agents_address,
    }
}
