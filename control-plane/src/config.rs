//! What the control plane was told by its file (`deployex.yaml`), its variables and its flags, read and checked as a whole.
//!
//! Nothing here opens a file or looks at the process's environment on its own: both are given, so that every rule can be
//! tested. What an application is to be is [`AppSpec`]; this is everything else.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};

use crate::spec::{AppSpec, Later, Millis};

/// Everything `serve` needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that was read; `None`: variables and flags alone.
    pub file: Option<PathBuf>,
    /// Where the control plane keeps what is its own: database, keys, local socket.
    pub data_dir: PathBuf,
    pub database_url: DatabaseUrl,
    pub console: Console,
    pub agents: AgentListener,
    pub releases: ReleaseBucket,
    pub secrets: SecretsFrom,
    pub hosts: HostPaths,
    /// How long metrics are kept in memory.
    pub metrics_retention: Millis,
    /// 0.x kept logs in memory for this long. Nothing on disk is bounded by it.
    pub logs_retention: Millis,
    /// `serve --demo`: signs in admin / deployex, on loopback only.
    pub demo: bool,
    /// `serve --auto-apply`.
    pub auto_apply: bool,
    /// In the order of the file.
    pub applications: Vec<AppSpec>,
    /// What was accepted and validated and is used by a part that is not in force yet, under the YAML's own keys.
    pub later: Later,
    /// What an operator should know although nothing is wrong.
    pub notices: Vec<String>,
}

/// How people and programs reach the console and the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Console {
    /// The public name, as people type it.
    pub hostname: String,
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
}

/// A database's address, which may hold a password: `Debug` and `Display` show none.
#[derive(Clone)]
pub struct DatabaseUrl(SecretString);

impl DatabaseUrl {
    pub fn new(url: String) -> Self {
        Self(SecretString::from(url))
    }

    /// The SQLite database that lies in the data folder.
    pub fn beside(data_dir: &Path) -> Self {
        Self::new(format!("sqlite://{}", data_dir.join("deployex.db").display()))
    }

    /// With its password: for the one who connects.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    pub fn is_sqlite(&self) -> bool {
        self.expose().starts_with("sqlite:")
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.expose();
        // The last `@` ends the user's part, whatever a password holds.
        match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?))) {
            Some((scheme, (_, host))) => write!(f, "{scheme}://…@{host}"),
            None => f.write_str(url),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

/// The flags of `serve`. Precedence: flag, then variable, then YAML, then default.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub config: Option<PathBuf>,
    pub data_dir: Option<PathBuf>,
    pub database_url: Option<DatabaseUrl>,
    pub demo: bool,
    pub auto_apply: bool,
}

impl Config {
    pub const DEFAULT_DATA_DIR: &str = "/var/lib/deployex";
    pub const DEFAULT_BUCKET: &str = "/tmp/deployex/bucket";
    pub const DEFAULT_CONSOLE_PORT: u16 = 5001;
    pub const DEFAULT_AGENTS_PORT: u16 = 5002;

    /// Every default, for a data folder.
    pub fn new(data_dir: &Path) -> Self {
        Self {
            file: None,
            data_dir: data_dir.to_owned(),
            database_url: DatabaseUrl::beside(data_dir),
            console: Console {
                hostname: "example.com".to_owned(),
                bind: Ipv4Addr::LOCALHOST.into(),
                port: Self::DEFAULT_CONSOLE_PORT,
                served: true,
                tls: None,
                trusted_proxies: vec![IpNet::from(IpAddr::from(Ipv4Addr::LOCALHOST))],
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
            metrics_retention: Millis(3_600_000),
            logs_retention: Millis(3_600_000),
            demo: false,
            auto_apply: false,
            applications: Vec::new(),
            later: Later::default(),
            notices: Vec::new(),
        }
    }

    /// The address that agents dial: what `deployex node token` prints and the listener's certificate carries.
    pub fn agents_address(&self) -> PublicAddress {
        self.agents
            .public
            .clone()
            .unwrap_or_else(|| PublicAddress { host: self.console.hostname.clone(), port: self.agents.port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_url_shows_no_password() {
        let url = DatabaseUrl::new("postgres://deployex:s3c@ret@db.example.com/deployex".to_owned());
        assert_eq!(url.to_string(), "postgres://…@db.example.com/deployex");
        assert_eq!(format!("{url:?}"), "DatabaseUrl(postgres://…@db.example.com/deployex)");
        assert_eq!(DatabaseUrl::beside(Path::new("/x")).to_string(), "sqlite:///x/deployex.db");
    }

    #[test]
    fn agents_dial_the_hostname_unless_told_otherwise() {
        let mut config = Config::new(Path::new("/x"));
        assert_eq!(config.agents_address().to_string(), "example.com:5002");
        config.agents.public = Some(PublicAddress { host: "::1".to_owned(), port: 7 });
        assert_eq!(config.agents_address().to_string(), "[::1]:7");
    }
}
