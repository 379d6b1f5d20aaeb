//! The table: which tools there are, what each is for, which package of which distribution brings it. Pure.

use std::fmt;

/// What the machine is set up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Purpose {
    /// The programs, the console and the sample applications.
    Demo,
    /// All that and every suite of `cargo xtask test`.
    Test,
    /// The programs, the sample applications, and what the benchmarks compare with.
    Bench,
}

/// A distribution whose package names are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    Debian12,
    Debian13,
    Ubuntu2404,
}

/// Something that has to be on the machine. Ordered as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    Git,
    CCompiler,
    Erlang,
    Elixir,
    Rebar3,
    WebCompiler,
    Nextest,
    CargoDeny,
    Postgres,
    Nginx,
    Iproute,
    Chromium,
    ChromeDriver,
    Runit,
    Supervisord,
    /// The user whom applications run as. Only root can create it, and only root's agent needs it.
    ApplicationUser,
}

/// How a tool comes onto a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Packages(&'static [&'static str]),
    Cargo(&'static str),
    /// By a command of its own that needs root.
    Administrator(&'static str),
    /// Not by us: [`Tool::by_hand`] says how.
    ByHand,
}

impl Distribution {
    /// Reads `/etc/os-release`.
    pub fn from_os_release(text: &str) -> Option<Self> {
        let value = |key: &str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value.trim_matches('"').to_owned())
        };
        match (value("ID")?.as_str(), value("VERSION_ID")?.as_str()) {
            ("debian", "12") => Some(Self::Debian12),
            ("debian", "13") => Some(Self::Debian13),
            ("ubuntu", "24.04") => Some(Self::Ubuntu2404),
            _ => None,
        }
    }
}

impl Purpose {
    pub fn needs(self) -> Vec<Tool> {
        let mut tools =
            vec![Tool::Git, Tool::CCompiler, Tool::Erlang, Tool::Elixir, Tool::Rebar3, Tool::ApplicationUser];
        if matches!(self, Self::Demo | Self::Test) {
            tools.push(Tool::WebCompiler);
        }
        if self == Self::Test {
            tools.extend([Tool::Nextest, Tool::CargoDeny, Tool::Postgres, Tool::Nginx, Tool::Iproute]);
            tools.extend([Tool::Chromium, Tool::ChromeDriver]);
        }
        if self == Self::Bench {
            tools.extend([Tool::Runit, Tool::Supervisord]);
        }
        tools.sort_unstable();
        tools
    }
}

impl Tool {
    /// The programs of which one must be on `PATH`; empty where the tool is found in another way.
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Git => &["git"],
            Self::CCompiler => &["cc"],
            Self::Erlang => &["erl"],
            Self::Elixir => &["mix"],
            Self::Rebar3 => &["rebar3"],
            Self::Nextest => &["cargo-nextest"],
            Self::CargoDeny => &["cargo-deny"],
            Self::Nginx => &["nginx"],
            Self::Iproute => &["ip"],
            Self::Chromium => &["chromium", "chromium-browser", "google-chrome"],
            Self::ChromeDriver => &["chromedriver", "chromium.chromedriver"],
            Self::Runit => &["runsv"],
            Self::Supervisord => &["supervisord"],
            Self::WebCompiler | Self::Postgres | Self::ApplicationUser => &[],
        }
    }

    pub fn source(self, distribution: Distribution) -> Source {
        use Distribution::{Debian12, Debian13, Ubuntu2404};
        match (self, distribution) {
            (Self::Git, _) => Source::Packages(&["git"]),
            (Self::CCompiler, _) => Source::Packages(&["gcc", "libc6-dev"]),
            (Self::Erlang, _) => Source::Packages(&["erlang-base", "erlang-ssl", "erlang-runtime-tools"]),
            (Self::Elixir, _) => Source::Packages(&["elixir"]),
            (Self::Rebar3, _) => Source::Packages(&["rebar3"]),
            // A compiler for the web that Debian keeps new for its browsers; used where rustup cannot add its own target.
            (Self::WebCompiler, Debian12 | Debian13) => {
                Source::Packages(&["rustc-web", "cargo-web", "rust-web-src", "lld-19"])
            }
            (Self::Nextest, _) => Source::Cargo("cargo-nextest"),
            (Self::CargoDeny, _) => Source::Cargo("cargo-deny"),
            (Self::Postgres, _) => Source::Packages(&["postgresql"]),
            (Self::Nginx, _) => Source::Packages(&["nginx"]),
            (Self::Iproute, _) => Source::Packages(&["iproute2"]),
            (Self::Chromium, Debian12 | Debian13) => Source::Packages(&["chromium"]),
            (Self::ChromeDriver, Debian12 | Debian13) => Source::Packages(&["chromium-driver"]),
            // Ubuntu's browsers are snaps, which containers cannot install (the browser suite fails by name without them),
            // and it has no compiler for the web that is new enough.
            (Self::WebCompiler | Self::Chromium | Self::ChromeDriver, Ubuntu2404) => Source::ByHand,
            (Self::Runit, _) => Source::Packages(&["runit"]),
            (Self::Supervisord, _) => Source::Packages(&["supervisor"]),
            (Self::ApplicationUser, _) => Source::Administrator(
                "useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin deployex",
            ),
        }
    }

    /// What to do where no package is known.
    pub fn by_hand(self) -> String {
        match self {
            Self::WebCompiler => {
                "the console needs a target of rustc: rustup target add wasm32-unknown-unknown".into()
            }
            Self::Chromium | Self::ChromeDriver => {
                format!("the browser suite needs {self}: sudo snap install chromium")
            }
            _ => format!("install {self} ({})", self.programs().join(" or ")),
        }
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Git => "git",
            Self::CCompiler => "a C compiler",
            Self::Erlang => "Erlang/OTP",
            Self::Elixir => "Elixir with mix",
            Self::Rebar3 => "rebar3",
            Self::WebCompiler => "a Rust compiler for wasm32-unknown-unknown",
            Self::Nextest => "cargo-nextest",
            Self::CargoDeny => "cargo-deny",
            Self::Postgres => "a PostgreSQL server",
            Self::Nginx => "NGINX",
            Self::Iproute => "iproute2",
            Self::Chromium => "Chromium",
            Self::ChromeDriver => "ChromeDriver",
            Self::Runit => "runit",
            Self::Supervisord => "supervisord",
            Self::ApplicationUser => "the user deployex, whom applications run as",
        })
    }
}
