//! A control plane and its hosts, each with an address of its own, and a cable from each host that can be pulled.
//!
//! ```text
//!   control plane  10.77.0.1 ──┐
//!   first host     10.77.0.2 ──┤ switch
//!   second host    10.77.0.3 ──┘
//! ```
//! Of namespaces each of them has all ports, its own loopback and its own Erlang name server, and nothing of them is seen from
//! the machine itself. Over loopback a host is an address 127.0.0.N and a [`Link`]: that needs no rights, and replicas of all
//! hosts share one table of ports.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use self::namespace::Namespace;
use crate::link::Link;
use crate::programs::{Agent, ControlPlane};

mod namespace;

/// What hosts are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Namespaces,
    Loopback,
}

/// Turns each story, an `async fn name(kind: Kind)`, into one test per kind, whose name says of which. Those in namespaces are a suite of their own in
/// `cargo xtask test`, which says where they cannot be run.
#[macro_export]
macro_rules! on_hosts_of_both_kinds {
    ($($name:ident),+ $(,)?) => {
        mod as_root_with_namespaces {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::hosts::Kind::Namespaces).await;
            })+
        }

        mod over_loopback {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::hosts::Kind::Loopback).await;
            })+
        }
    };
}

/// Where programs run.
#[derive(Clone, Debug)]
pub struct Host {
    address: Ipv4Addr,
    /// `None`: the machine's own.
    namespace: Option<Arc<Namespace>>,
    /// What programs there take it to be called; `None`: as the machine.
    name: Option<String>,
}

impl Host {
    /// The machine that the test runs on.
    pub fn this_machine() -> Self {
        Self { address: Ipv4Addr::LOCALHOST, namespace: None, name: None }
    }

    fn of_namespace(address: Ipv4Addr) -> Self {
        Self { address, namespace: Some(Arc::new(Namespace::new())), name: None }
    }

    /// Where others reach what runs here.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// What programs there take the host to be called, where that is not as the machine is.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Nobody else listens here.
    pub fn has_all_ports(&self) -> bool {
        self.namespace.is_some()
    }

    /// Does something here: what is connected to is seen from this host, and programs that are started stay on it.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        match &self.namespace {
            Some(namespace) => namespace.enter(act),
            None => act(),
        }
    }

    /// As [`crate::http::get`], asked from this host.
    pub async fn get(&self, url: &str) -> Result<String, String> {
        if self.namespace.is_none() {
            return crate::http::get(url).await;
        }
        let (host, url) = (self.clone(), url.to_owned());
        let asking = move || {
            host.enter(|| {
                // Sockets belong to the namespace of the thread that makes them, so the thread has a reactor of its own.
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime can be made").block_on(crate::http::get(&url))
            })
        };
        tokio::task::spawn_blocking(asking).await.expect("asking does not panic")
    }
}

/// How the hosts hang together.
#[derive(Debug)]
enum Cables {
    /// By this host, which has a port for each, named by [`port`].
    Switch(Host),
    /// One for each host that has joined.
    Links(Vec<Link>),
}

/// Gone when it and all that ran in it are dropped, also where the test that made it was killed.
#[derive(Debug)]
pub struct Network {
    control_plane: Host,
    hosts: Vec<Host>,
    cables: Cables,
}

impl Network {
    pub fn new(kind: Kind, hosts: u8) -> Self {
        match kind {
            Kind::Namespaces => Self::of_namespaces(hosts),
            Kind::Loopback => Self::over_loopback(hosts),
        }
    }

    /// Of namespaces, whose hosts are called so. Nobody resolves these names.
    pub fn of_named_hosts(names: &[&str]) -> Self {
        let count = u8::try_from(names.len()).expect("a few hosts");
        let mut network = Self::of_namespaces(count);
        for (host, name) in network.hosts.iter_mut().zip(names) {
            host.name = Some((*name).to_owned());
        }
        network
    }

    fn of_namespaces(hosts: u8) -> Self {
        let switch = Host::of_namespace(Ipv4Addr::UNSPECIFIED);
        let ip = |host: &Host, lines: &str| {
            if let Some(namespace) = &host.namespace {
                namespace.ip(lines);
            }
        };
        ip(&switch, "link add switch type bridge\nlink set switch up\n");
        let all: Vec<Host> =
            (1..=hosts + 1).map(|number| Host::of_namespace([10, 77, 0, number].into())).collect();
        for host in &all {
            let Some(namespace) = &host.namespace else { continue };
            let (address, port) = (host.address, port(host));
            let lines = format!(
                "link add {port} type veth peer name eth0 netns {}\nlink set {port} master switch up\n",
                namespace.path()
            );
            ip(&switch, &lines);
            ip(host, &format!("link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n"));
        }
        let (control_plane, hosts) = all.split_first().expect("there is one more than hosts");
        Self { control_plane: control_plane.clone(), hosts: hosts.to_vec(), cables: Cables::Switch(switch) }
    }

    fn over_loopback(hosts: u8) -> Self {
        let host = |number| Host { address: [127, 0, 0, number].into(), namespace: None, name: None };
        Self {
            control_plane: Host::this_machine(),
            hosts: (2..hosts + 2).map(host).collect(),
            cables: Cables::Links(Vec::new()),
        }
    }

    /// Where the control plane is to run.
    pub fn control_plane(&self) -> &Host {
        &self.control_plane
    }

    /// The first is 0.
    pub fn host(&self, number: usize) -> &Host {
        &self.hosts[number]
    }

    /// An agent on each host, by these names in order.
    pub async fn join(&mut self, control_plane: &ControlPlane, names: &[&str]) -> Vec<Agent> {
        let mut agents = Vec::new();
        for (host, name) in self.hosts.iter().zip(names) {
            let dialled: SocketAddr = match &mut self.cables {
                Cables::Switch(_) => control_plane.agents_address(),
                Cables::Links(links) => {
                    let link = Link::to(control_plane.agents_address()).await;
                    let address = link.address();
                    links.push(link);
                    address
                }
            };
            agents.push(Agent::join_on(host.clone(), control_plane, dialled, name).await);
        }
        agents
    }

    /// From now on nothing comes from this host nor gets there, and nobody is told.
    pub fn pull_cable(&self, number: usize) {
        match &self.cables {
            Cables::Switch(switch) => set(switch, &self.hosts[number], "down"),
            Cables::Links(links) => links[number].silence(),
        }
    }

    pub fn plug_cable(&self, number: usize) {
        match &self.cables {
            Cables::Switch(switch) => set(switch, &self.hosts[number], "up"),
            Cables::Links(links) => links[number].mend(),
        }
    }

    /// The entries of an application's `env` with which the Erlang sample listens at its host's address.
    pub fn address_of_replicas(&self) -> &'static str {
        match &self.cables {
            Cables::Switch(_) => "{ key: SAMPLE_ADDRESS, value: 0.0.0.0 }",
            // From its home to the folder that the agent has of us.
            Cables::Links(_) => "{ key: SAMPLE_ADDRESS_FILE, value: ../../../../address }",
        }
    }

    /// The list `ready` of an application that asks the Erlang sample for its health.
    pub fn health_check(&self) -> &'static str {
        match &self.cables {
            Cables::Switch(_) => "[{ http: { port: PORT, path: /health }, interval_ms: 200, after: 1 }]",
            // An agent asks over 127.0.0.1, where none of these replicas is.
            Cables::Links(_) => {
                "\n      - exec:\n          command: bash -c 'exec 3<>/dev/tcp/$(cat $HOME/../../../../address)/$PORT && \
                 printf \"GET /health HTTP/1.1\\r\\n\\r\\n\" >&3 && read -r _ status _ <&3 && test $status = 200'\n        \
                 interval_ms: 300\n        after: 1"
            }
        }
    }
}

/// A host's port of the switch.
fn port(host: &Host) -> String {
    format!("port{}", host.address.octets()[3])
}

fn set(switch: &Host, host: &Host, state: &str) {
    if let Some(namespace) = &switch.namespace {
        namespace.ip(&format!("link set {} {state}\n", port(host)));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::link::NOTHING_CAME;
    use crate::wait::USUAL;

    fn interfaces() -> Vec<String> {
        let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        table.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
    }

    #[test]
    fn as_root_with_namespaces_a_pulled_cable_holds_bytes_back_and_closes_nothing() {
        let before = interfaces();
        let network = Network::new(Kind::Namespaces, 2);
        let [first, second] = [network.host(0), network.host(1)];
        let listener = first.enter(|| TcpListener::bind((first.address(), 4_000)).unwrap());
        // The same port, elsewhere.
        let _other = second.enter(|| TcpListener::bind((second.address(), 4_000)).unwrap());
        let mut to = second.enter(|| TcpStream::connect((first.address(), 4_000)).unwrap());
        let mut from = listener.accept().unwrap().0;
        let mut received = [0; 3];
        to.write_all(b"one").unwrap();
        from.read_exact(&mut received).unwrap();

        network.pull_cable(0);
        from.set_read_timeout(Some(NOTHING_CAME)).unwrap();
        to.write_all(b"two").unwrap();
        let silent = from.read(&mut received).unwrap_err();
        assert_eq!(silent.kind(), std::io::ErrorKind::WouldBlock);
        network.plug_cable(0);
        from.set_read_timeout(Some(USUAL)).unwrap();
        from.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"two");

        assert_eq!(first.enter(interfaces), ["lo", "eth0"]);
        assert_eq!(interfaces(), before, "the machine itself sees nothing of it");
    }

    #[test]
    fn as_root_with_namespaces_nothing_is_left_of_a_network_but_what_still_runs_in_it() {
        let network = Network::new(Kind::Namespaces, 1);
        let host = network.host(0).clone();
        let name = |text: &str| std::fs::read_link(text).unwrap();
        let namespace = host.enter(|| name("/proc/thread-self/ns/net"));
        assert_ne!(namespace, name("/proc/self/ns/net"));
        let mut left = host.enter(|| std::process::Command::new("sleep").arg("60").spawn().unwrap());
        drop((network, host));
        assert_eq!(holders(&namespace), [left.id()]);
        left.kill().unwrap();
        left.wait().unwrap();
        assert_eq!(holders(&namespace), Vec::<u32>::new());
    }

    /// Who is in it or has it open.
    fn holders(namespace: &std::path::Path) -> Vec<u32> {
        let is_it = |path: std::path::PathBuf| std::fs::read_link(path).is_ok_and(|it| it == namespace);
        let holds = |pid: &u32| {
            let process = std::path::PathBuf::from(format!("/proc/{pid}"));
            let open = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
            is_it(process.join("ns/net")) || open.map(|it| it.path()).any(is_it)
        };
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|it| it.file_name().to_str()?.parse().ok()).filter(holds).collect()
    }
}
