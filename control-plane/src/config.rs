//! What the control plane was told by its file (`deployex.yaml`), its variables and its flags, read and checked as a whole.
//!
//! Nothing here opens a file or looks at the process's environment on its own: both are given, so that every rule can be
//! tested. What an application is to be is [`AppSpec`]; this is everything else.

mod application;
pub mod apply;
pub mod changes;
mod database_url;
mod edit;
#[cfg(test)]
mod effects;
mod fault;
mod fields;
#[cfg(test)]
mod hostile;
mod later;
#[cfg(test)]
mod malformed;
#[cfg(test)]
mod moving_over;
mod notifications;
mod otlp;
mod ports;
mod quantity;
mod rules;
mod settings;
mod text;
mod tree;
mod variables;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

pub use self::database_url::DatabaseUrl;
pub use self::edit::CannotEdit;
pub(crate) use self::edit::scaled;
use self::fault::Sink;
pub use self::fault::{Fault, Faults, Origin};
use self::fields::{Fields, Path as KeyPath};
pub use self::otlp::Otlp;
pub use self::text::{Reading, Text};
use crate::spec::monitoring::HostMonitoring;
use crate::spec::{AppSpec, Later};

/// Why a configuration cannot be used. Nothing of it was applied.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {path}, named by {by}", path = path.display())]
    Unreadable {
        path: PathBuf,
        /// `--config` or the variable.
        by: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Faults(#[from] Faults),
}

/// Everything `serve` needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that was read; `None`: variables and flags alone.
    pub file: Option<PathBuf>,
    /// What it held.
    pub text: Text,
    /// Where the control plane keeps what is its own (database, keys, local socket), in a folder in it (`home`).
    pub data_dir: PathBuf,
    pub database_url: DatabaseUrl,
    pub console: Console,
    pub agents: AgentListener,
    pub releases: ReleaseBucket,
    pub secrets: SecretsFrom,
    pub hosts: HostPaths,
    /// At which shares agents warn of their hosts' memory and disk, or restart a replica.
    pub monitoring: HostMonitoring,
    /// Where metrics are pushed to; `None`: nowhere, they are there to be scraped.
    pub otlp: Option<Box<Otlp>>,
    /// `serve --demo`: signs in admin / deployex, on loopback only.
    pub demo: bool,
    /// In the order of the file.
    pub applications: Vec<AppSpec>,
    /// The file has the key `applications`, or a variable names one: then what is not among them is withdrawn. A start without
    /// a file, or with one that lost its end, must not take down what runs.
    pub names_applications: bool,
    /// What was accepted and validated and is used by a part that is not in force yet, under the YAML's own keys.
    pub later: Later,
    /// What an operator should know although nothing is wrong.
    pub notices: Vec<String>,
}

/// How people and programs reach the console and the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Console {
    /// The public name, as people type it; `None`: nobody said.
    pub hostname: Option<String>,
    pub bind: IpAddr,
    pub port: u16,
    /// Whether the console is served; the API always is.
    pub served: bool,
    pub tls: Option<TlsFiles>,
    /// Whose forwarded headers count for scheme, host and client address.
    pub trusted_proxies: Vec<IpNet>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The listener that agents dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentListener {
    pub bind: IpAddr,
    pub port: u16,
    /// `HOST:PORT` that agents dial, where it is not `hostname` and `port`. The certificate carries its host too.
    pub public: Option<PublicAddress>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicAddress {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for PublicAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Where releases come from: `{bucket}/versions/{app}/{account_name}/current.json` and `{bucket}/dist/…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseBucket {
    pub adapter: ReleaseAdapter,
    /// A bucket's name, or for the local adapter a folder.
    pub bucket: String,
    /// The `{env}` of the bucket's paths.
    pub account_name: String,
    pub aws_region: Option<String>,
    /// A file with a service account's key.
    pub google_credentials: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseAdapter {
    Local,
    S3,
    GcpStorage,
}

impl ReleaseAdapter {
    pub fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::S3 => "s3",
            Self::GcpStorage => "gcp-storage",
        }
    }
}

/// Where the three secrets of DeployEx and `from_secret` values come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretsFrom {
    pub adapter: SecretsAdapter,
    /// The name of the secret; for the file adapter a path.
    pub path: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretsAdapter {
    Env,
    File,
    Aws,
    Gcp,
}

impl SecretsAdapter {
    pub fn word(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::File => "file",
            Self::Aws => "aws",
            Self::Gcp => "gcp",
        }
    }
}

/// What the file says of hosts; an agent's own settings win. `None`: not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostPaths {
    pub var_path: Option<PathBuf>,
    pub log_path: Option<PathBuf>,
    pub monitored_app_log_path: Option<PathBuf>,
    /// The certificate that all Erlang nodes of a host talk TLS with.
    pub otp_tls_certificates: Option<PathBuf>,
}

/// The flags of `serve`. Precedence: flag, then variable, then YAML, then default.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub config: Option<PathBuf>,
    pub data_dir: Option<PathBuf>,
    pub database_url: Option<DatabaseUrl>,
    pub demo: bool,
    /// A changed file is put in force as soon as it is seen.
    pub auto_apply: bool,
}

impl Config {
    /// Reads the file that the flag names, else the variable; without either, flags and variables are everything.
    pub fn load(flags: &Flags, variables: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        const VARIABLE: &str = "DEPLOYEX_CONFIG_YAML_PATH";
        let variable = variables.get(VARIABLE).filter(|it| !it.is_empty()).map(PathBuf::from);
        let (path, by) = match (&flags.config, variable) {
            (Some(path), _) => (path.clone(), "--config"),
            (None, Some(path)) => (path, VARIABLE),
            (None, None) => return Ok(Self::read(None, flags, variables)?),
        };
        let bytes = Self::read_file(&path).map_err(|source| ConfigError::Unreadable {
            path: path.clone(),
            by,
            source,
        })?;
        Ok(Self::read(Some((&path, &bytes)), flags, variables)?)
    }

    /// One byte more than is allowed at most, so that the size is a fault of the file like any other.
    pub fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(tree::MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// What a configuration may have, in bytes.
    pub const MAX_BYTES: usize = tree::MAX_BYTES;

    /// The whole configuration, or everything that is wrong with it.
    pub fn read(
        file: Option<(&Path, &[u8])>,
        flags: &Flags,
        variables: &BTreeMap<String, String>,
    ) -> Result<Self, Faults> {
        let name = file.map(|(path, _)| path.display().to_string());
        let sink = Sink::new(variables);
        let root = file.and_then(|(_, bytes)| tree::parse(bytes, &sink));
        // What is not YAML has no keys to say more about.
        if sink.is_clean() {
            let config = Self::compose(root.as_ref(), flags, &sink);
            let (faults, notices) = sink.into_parts();
            if faults.is_empty() {
                let text = file.map(|(_, bytes)| Text::from(bytes)).unwrap_or_default();
                return Ok(Self { file: file.map(|(path, _)| path.to_owned()), text, notices, ..config });
            }
            return Err(Faults { file: name, faults });
        }
        Err(Faults { file: name, faults: sink.into_parts().0 })
    }

    /// With defaults wherever something is wrong: the faults are in the sink, and the result is thrown away.
    fn compose(root: Option<&tree::Node>, flags: &Flags, sink: &Sink<'_>) -> Self {
        let open = |node| Fields::open(sink, node, KeyPath::default());
        // A file of comments alone is an empty one.
        let root = root.filter(|it| !matches!(it.value, tree::Value::Null));
        let mut fields = root.and_then(open).unwrap_or_else(|| Fields::none(sink));
        let (mut config, for_all) = settings::read(&mut fields, flags);
        let mut written = application::read_all(&mut fields, for_all);
        config.names_applications = fields.has("applications");
        fields.finish();
        variables::overlay(&mut written, for_all, sink);
        ports::check(&mut written, sink);
        config.names_applications |= !written.is_empty();
        if !config.names_applications {
            sink.notice(
                "no applications are named: those that were configured before stay as they are".to_owned(),
            );
        }
        config.applications = written.into_iter().map(|it| it.spec).collect();
        config
    }

    pub const DEFAULT_DATA_DIR: &str = "/var/lib/deployex";
    pub const DEFAULT_BUCKET: &str = "/tmp/deployex/bucket";
    pub const DEFAULT_CONSOLE_PORT: u16 = 5001;
    pub const DEFAULT_AGENTS_PORT: u16 = 5002;

    /// Every default, for a data folder.
    pub fn new(data_dir: &Path) -> Self {
        Self {
            file: None,
            text: Text::default(),
            data_dir: data_dir.to_owned(),
            database_url: DatabaseUrl::beside(data_dir),
            console: Console {
                hostname: None,
                bind: Ipv4Addr::LOCALHOST.into(),
                port: Self::DEFAULT_CONSOLE_PORT,
                served: true,
                tls: None,
                trusted_proxies: Config::loopback(),
            },
            agents: AgentListener {
                bind: Ipv4Addr::UNSPECIFIED.into(),
                port: Self::DEFAULT_AGENTS_PORT,
                public: None,
            },
            releases: ReleaseBucket {
                adapter: ReleaseAdapter::Local,
                bucket: Self::DEFAULT_BUCKET.to_owned(),
                account_name: "local".to_owned(),
                aws_region: None,
                google_credentials: None,
            },
            secrets: SecretsFrom { adapter: SecretsAdapter::Env, path: None },
            hosts: HostPaths::default(),
            monitoring: HostMonitoring::default(),
            otlp: None,
            demo: false,
            applications: Vec::new(),
            names_applications: false,
            later: Later::default(),
            notices: Vec::new(),
        }
    }

    /// Every address that only this machine can have.
    fn loopback() -> Vec<IpNet> {
        ["127.0.0.0/8", "::1/128"].iter().filter_map(|it| it.parse().ok()).collect()
    }

    /// The address that agents dial: what `deployex node token` prints and the listener's certificate carries. `machine` is
    /// this machine's own name, for where nothing better was said.
    pub fn agents_address(&self, machine: &str) -> AgentsAddress {
        let port = self.agents.port;
        let at = |host: &str| PublicAddress { host: host.to_owned(), port };
        match (&self.agents.public, &self.console.hostname) {
            (Some(public), _) => AgentsAddress { address: public.clone(), is_guess: false },
            (None, Some(hostname)) => AgentsAddress { address: at(hostname), is_guess: false },
            // The demo answers this machine alone.
            (None, None) if self.demo => AgentsAddress { address: at("127.0.0.1"), is_guess: false },
            (None, None) => AgentsAddress { address: at(machine), is_guess: true },
        }
    }
}

/// What agents dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentsAddress {
    pub address: PublicAddress,
    /// Nobody said so: other hosts may not know this name.
    pub is_guess: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_told_an_address_that_leads_here() {
        let mut config = Config::new(Path::new("/x"));
        let told = |config: &Config| {
            let AgentsAddress { address, is_guess } = config.agents_address("box-7");
            (address.to_string(), is_guess)
        };
        assert_eq!(told(&config), ("box-7:5002".to_owned(), true));
        config.demo = true;
        assert_eq!(told(&config), ("127.0.0.1:5002".to_owned(), false));
        config.console.hostname = Some("deploy.example.com".to_owned());
        assert_eq!(told(&config), ("deploy.example.com:5002".to_owned(), false));
        config.agents.public = Some(PublicAddress { host: "::1".to_owned(), port: 7 });
        assert_eq!(told(&config), ("[::1]:7".to_owned(), false));
    }
}
