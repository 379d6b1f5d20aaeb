//! The agent's client of the distribution protocol, alone, so that it can be measured: connects to a node and makes calls as
//! told by the lines that it reads. Built with the feature `bench` only; no part of an installation.
//!
//! ```text
//!   one COUNT            one call after another    one P50 P99 RATE      in ns, and calls a second
//!   many COUNT FLIGHT    as many at a time         many RATE
//! ```

use std::fs;
use std::io::{BufRead as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use node_agent::dist::connection::{Connection, Settings};
use node_agent::dist::dial::{Node, dial};
use node_agent::dist::handshake::Local;
use node_agent::dist::term::Atom;
use node_agent::dist::tls::client_config;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Also of a node that is slow.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Writes an authority's certificate, one for `host` with its key, and the option file of a node that speaks TLS
    Certificates { folder: PathBuf, host: String },
    /// Makes calls
    Calls {
        node: String,
        #[arg(long)]
        epmd_port: u16,
        #[arg(long)]
        cookie: String,
        /// Where certificates were written: the protocol goes over TLS then
        #[arg(long)]
        certificates: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    // As the agent's own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = match Arguments::parse().what {
        What::Certificates { folder, host } => certificates(&folder, &host),
        What::Calls { node, epmd_port, cookie, certificates } => {
            runtime.context("no runtime").and_then(|runtime| {
                let tls = certificates.map(|folder| client(&folder)).transpose()?;
                let epmd = SocketAddr::from((Ipv4Addr::LOCALHOST, epmd_port));
                let node = Node { name: Atom::new(&node)?, epmd, cookie: cookie.into(), tls };
                let connection = runtime.block_on(connect(&node))?;
                for line in std::io::stdin().lock().lines() {
                    // In a task, as in the agent: the thread that waits for it does nothing else.
                    let turn = turn(connection.clone(), line?);
                    let said = runtime.block_on(async { TaskTracker::new().spawn(turn).await })??;
                    writeln!(std::io::stdout(), "{said}")?;
                }
                Ok(())
            })
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn connect(node: &Node) -> anyhow::Result<Connection> {
    let local = Local { name: Atom::of("ours@127.0.0.1"), creation: 4 };
    let (stream, peer) = dial(node, &local, PATIENCE).await?;
    let settings = Settings { calls_of_one: 64, ..Settings::default() };
    let (connection, work) = Connection::new(stream, &local, peer, settings, CancellationToken::new());
    TaskTracker::new().spawn(work);
    Ok(connection)
}

async fn turn(connection: Connection, line: String) -> anyhow::Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["one", count] => one(&connection, count.parse()?).await,
        ["many", count, flight] => many(&connection, count.parse()?, flight.parse()?).await,
        _ => bail!("{line:?} says nothing"),
    }
}

async fn call(connection: &Connection) -> anyhow::Result<()> {
    let memory = connection.call("erlang", "memory", Vec::new(), PATIENCE).await?;
    if memory.get("total").is_none() { bail!("{memory} is no answer") } else { Ok(()) }
}

async fn one(connection: &Connection, count: usize) -> anyhow::Result<String> {
    let mut took = Vec::with_capacity(count);
    let began = Instant::now();
    for _ in 0..count {
        let asked = Instant::now();
        call(connection).await?;
        took.push(asked.elapsed().as_nanos());
    }
    let rate = rate(count, began);
    took.sort_unstable();
    let at = |percent: usize| took.get(count * percent / 100).copied().unwrap_or_default();
    Ok(format!("one {} {} {rate}", at(50), at(99)))
}

async fn many(connection: &Connection, count: usize, flight: usize) -> anyhow::Result<String> {
    let each = count / flight;
    let began = Instant::now();
    let tasks = TaskTracker::new();
    let callers: Vec<_> = (0..flight)
        .map(|_| {
            let connection = connection.for_another();
            tasks.spawn(async move {
                for _ in 0..each {
                    call(&connection).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for caller in callers {
        caller.await??;
    }
    Ok(format!("many {}", rate(each * flight, began)))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "thousands a second")]
#[expect(clippy::cast_precision_loss, reason = "thousands of calls")]
fn rate(count: usize, began: Instant) -> u64 {
    (count as f64 / began.elapsed().as_secs_f64()) as u64
}

fn certificates(folder: &Path, host: &str) -> anyhow::Result<()> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![host.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, host);
    let leaf = params.signed_by(&key, &authority)?;
    let path = |name| folder.join(name);
    fs::write(path("ca.pem"), authority.pem())?;
    fs::write(path("node.pem"), leaf.pem())?;
    fs::write(path("node.key"), key.serialize_pem())?;
    let common = format!(
        "{{cacertfile, {:?}}}, {{certfile, {:?}}}, {{keyfile, {:?}}}, {{verify, verify_peer}}, {{versions, ['tlsv1.3']}}",
        path("ca.pem"),
        path("node.pem"),
        path("node.key")
    );
    // An Erlang node looks for the host, which is an address, among the names that a certificate is for.
    let any_host = "{customize_hostname_check, [{match_fun, fun erlang:'=/='/2}]}";
    let options = format!(
        "[{{server, [{common}, {{fail_if_no_peer_cert, true}}]}}, {{client, [{common}, {any_host}]}}].\n"
    );
    fs::write(path("inet_tls.conf"), options)?;
    Ok(())
}

fn client(folder: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem"))?)?;
    let chain = vec![CertificateDer::from_pem_file(folder.join("node.pem"))?];
    Ok(client_config(roots, chain, PrivateKeyDer::from_pem_file(folder.join("node.key"))?)?)
}
