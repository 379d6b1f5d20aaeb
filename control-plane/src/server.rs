//! The control plane as a whole: starts its parts in order, and stops them in the opposite one.
//!
//! ```text
//!   releases ──wishes──▶ db ◀──plans── reconcile ──wake──▶ agents ◀──mTLS── hosts
//!                        ▲                ▲                   │
//!      console, CLI ──▶ api ──────────────┘◀─────reports──────┘
//! ```

mod edges;
mod heard;
mod hosts;
mod notices;
mod parts;
mod sockets;

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::parts::Parts;
use self::sockets::Sockets;
use crate::agents::RootsError;
use crate::api;
use crate::auth::first::{FirstSignIn, FirstSignInError};
use crate::config::Config;
use crate::config::apply::ApplyError;
use crate::configuration::start::{BeginError, Start};
use crate::db::{ConfigurationVersion, Db, DbError};
use crate::error::chain;
use crate::home::{Home, HomeError};
use crate::listen::ListenError;
use crate::next_start::NextStart;
use crate::otlp::Exporter;
use crate::releases;
use crate::secrets::Secrets;
use crate::vault::VaultError;

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
    #[error(transparent)]
    Begin(#[from] BeginError),
    #[error(transparent)]
    Roots(#[from] RootsError),
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
    /// Cancelled where somebody asked that it begin anew once it has stopped.
    pub begin_anew: CancellationToken,
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
        next_start: NextStart,
        cancel: CancellationToken,
    ) -> Result<Running, StartError> {
        let home = Home::take(&config.data_dir)?;
        let known = Db::may_exist(config.database_url.expose());
        let vault = if known { Some(parts::vault(&config, &secrets, &home)?) } else { None };
        let start = Box::pin(Start::decide(config, next_start.reading(), vault.as_ref())).await?;
        if let Some(version) = start.overrides() {
            let ConfigurationVersion { number, by, origin, .. } = version;
            tracing::warn!(number, by, %origin, "the configuration that was applied stays in force; the file, which has not changed since, is another one");
        }
        let sockets = Sockets::bind(&start.config, &home).await?;
        let (cancelled, tasks) = (cancel.clone(), TaskTracker::new());
        let running = (cancelled, tasks.clone());
        let parts = Box::pin(Parts::join(&start, secrets, &home, next_start, running)).await?;
        let Parts { db, clock, agents, notices, reconciler, api, configuration, bucket, first_sign_in } =
            parts;

        let Sockets { console, console_address, local, agents: listener, agents_address } = sockets;
        let (socket, begin_anew) = (home.socket(), api.begin_anew.clone());
        let router = api::router(&api);
        tasks.spawn(console.serve(router.clone(), cancel.clone()));
        tasks.spawn(local.serve(router, cancel.clone()));
        tasks.spawn(api::show_live(api.clone(), cancel.clone()));
        tasks.spawn(reconciler.run(cancel.clone()));
        tasks.spawn(notices::record(db.clone(), notices, clock, cancel.clone()));
        tasks.spawn(heard::remember(db.clone(), agents.clone(), cancel.clone()));
        let stop = cancel.clone();
        tasks.spawn(async move {
            if let Err(error) = agents.serve(listener, stop.clone()).await {
                tracing::error!(error = chain(&error), "agents can no longer be served; stopping");
                stop.cancel();
            }
        });
        tasks.spawn(releases::watch(bucket, configuration.changes(), cancel.clone()));
        tasks.spawn(configuration.watch_file(cancel.clone()));
        if let Some(to) = start.config.otlp.clone() {
            let instance = start.config.console.hostname.clone().unwrap_or_else(parts::machine_name);
            let exporter = Exporter::new(*to, &instance, api.clone(), api.metrics.clone(), clock);
            tasks.spawn(exporter.run(cancel.clone()));
        }
        tasks.spawn(notices::forget_old(db.clone(), clock, cancel));
        Ok(Running {
            console: console_address,
            agents: agents_address,
            socket,
            first_sign_in,
            begin_anew,
            tasks,
            db,
            home,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use proto::state::Language;

    use super::*;
    use crate::clock::Time;
    use crate::config::{DatabaseUrl, Flags, Reading, ReleaseAdapter};
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
        let program = std::env::current_exe().unwrap();
        let next = NextStart::new(program, Reading::new(Flags::default(), BTreeMap::new()));
        Server::start(config, secrets, next, cancel.clone()).await
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

    /// The very figures of `/metrics`, read with the published types of OpenTelemetry.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_metrics_shows_is_pushed_where_the_configuration_says() {
        use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
        use prost::Message as _;
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        drop(rustls::crypto::ring::default_provider().install_default());
        let receiver = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let yaml = format!("metrics: {{ otlp_endpoint: http://{} }}\n", receiver.local_addr().unwrap());
        let file = Path::new("f.yaml");
        let soon = BTreeMap::from([("OTEL_METRIC_EXPORT_INTERVAL".to_owned(), "1000".to_owned())]);
        let read = Config::read(Some((file, yaml.as_bytes())), &Flags::default(), &soon).unwrap();
        let mut config = config(folder.path());
        config.otlp = read.otlp;
        let cancel = CancellationToken::new();
        let running = start(config, &cancel).await.unwrap();

        let (mut stream, _) = receiver.accept().await.unwrap();
        let mut heard = Vec::new();
        let request = loop {
            assert!(stream.read_buf(&mut heard).await.unwrap() > 0, "it hung up");
            let Some(end) = heard.windows(4).position(|it| it == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&heard[..end]).to_lowercase();
            assert!(head.starts_with("post /v1/metrics "), "{head}");
            let length = head.lines().find_map(|it| it.strip_prefix("content-length: ")).unwrap();
            let body = end + 4..end + 4 + length.trim().parse::<usize>().unwrap();
            if let Some(body) = heard.get(body) {
                break ExportMetricsServiceRequest::decode(body).unwrap();
            }
        };
        stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let names: Vec<&str> = metrics.iter().map(|it| it.name.as_str()).collect();
        assert!(names.contains(&"deployex_build_info") && names.contains(&"deployex_nodes"), "{names:?}");
        // The end of the program pushes once more, to a receiver that is gone by then.
        drop((stream, receiver));
        cancel.cancel();
        running.wait().await;
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
    async fn it_does_not_start_where_no_authority_of_the_agents_may_sign() {
        let folder = tempfile::tempdir().unwrap();
        let cancel = CancellationToken::new();
        let running = start(config(folder.path()), &cancel).await.unwrap();
        cancel.cancel();
        running.wait().await;
        let db = Db::open(config(folder.path()).database_url.expose()).await.unwrap();
        for authority in db.authorities("agents").await.unwrap() {
            db.retire_authority(authority.id, Time(1)).await.unwrap();
        }
        db.close().await.unwrap();
        let refused = start(config(folder.path()), &CancellationToken::new()).await.err().unwrap();
        assert!(matches!(refused, StartError::Roots(RootsError::Retired(_))), "{refused}");
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
