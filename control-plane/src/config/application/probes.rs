//! `ready` and `live`: what is asked of a replica, and how often.

use crate::config::fields::{Fields, check};
use crate::config::rules::{self, Allowed, Checked, Scalar};
use crate::config::tree::{Node, Value};
use crate::spec::{Ask, Millis, PortBase, Probe, ReadyWhen};

const KINDS: [&str; 5] = ["http", "tcp", "exec", "otp", "process"];

/// More would be a mistake, and every one is asked of every replica.
const MOST: usize = 16;

const TIMEOUT: Millis = Millis(2_000);
/// One failure alone (a pause of the VM, a busy moment) takes no replica out of traffic.
const READY_AFTER: u16 = 2;
/// Nor do two restart it.
const LIVE_AFTER: u16 = 3;

/// What `ready` says, and what an agent that knows no probes goes by.
pub(super) fn ready(f: &mut Fields<'_>, ports: &[PortBase]) -> (ReadyWhen, Vec<Probe>) {
    if let Some(Node { value: Value::Scalar { .. }, .. }) = f.node("ready") {
        f.read("ready", word);
        return (ReadyWhen::Process, Vec::new());
    }
    let probes = list(f, "ready", ports, READY_AFTER);
    match probes.iter().all(|it| it.ask == Ask::Process) {
        true if probes.is_empty() => (ReadyWhen::Default, probes),
        true => (ReadyWhen::Process, Vec::new()),
        false => (ReadyWhen::Default, probes),
    }
}

pub(super) fn live(f: &mut Fields<'_>, ports: &[PortBase]) -> Vec<Probe> {
    list(f, "live", ports, LIVE_AFTER)
}

fn list(f: &mut Fields<'_>, key: &'static str, ports: &[PortBase], after: u16) -> Vec<Probe> {
    let items = f.items(key, "");
    if items.len() > MOST {
        f.fault(key, format!("{} probes", items.len()), format!("at most {MOST} in a list"));
    }
    let mut probes = Vec::new();
    for item in items.into_iter().take(MOST) {
        if let Value::Scalar { .. } = item.node.value {
            let process = Probe { ask: Ask::Process, interval: None, timeout: TIMEOUT, after };
            probes.extend(check(f.sink, item.node, item.path.as_str(), bare).map(|()| process));
            continue;
        }
        let Some(mut probe) = Fields::open(f.sink, item.node, item.path) else { continue };
        probes.extend(one(&mut probe, ports, after));
        probe.finish();
    }
    probes
}

/// `ready: process`
fn word(scalar: Scalar<'_>) -> Checked<()> {
    match scalar.text {
        "process" => Ok(()),
        _ => Err(Allowed("process, or a list of probes such as [{ http: { path: /health } }]".to_owned())),
    }
}

/// `- process`
fn bare(scalar: Scalar<'_>) -> Checked<()> {
    match scalar.text {
        "process" => Ok(()),
        _ => Err(Allowed("process, or a probe such as { tcp: { port: PORT } }".to_owned())),
    }
}

/// `None`: it is at fault.
fn one(f: &mut Fields<'_>, ports: &[PortBase], after: u16) -> Option<Probe> {
    let interval = f.read("interval_ms", rules::millis(100..=3_600_000));
    let timeout = f.read("timeout_ms", rules::millis(10..=3_600_000)).unwrap_or(TIMEOUT);
    let after = f.read("after", rules::whole::<u16>(1..=1_000)).unwrap_or(after);
    let named: Vec<&'static str> = KINDS.into_iter().filter(|it| f.names(it)).collect();
    let [kind] = named.as_slice() else {
        let found = if named.is_empty() { "no probe".to_owned() } else { named.join(" and ") };
        f.sink.fault(
            f.at.clone(),
            f.path.as_str(),
            found,
            "one of http, tcp, exec, otp or process in each item",
        );
        return None;
    };
    // `process:`, `tcp:` and `otp:` need nothing below them.
    let ask = if f.has(kind) {
        let mut below = f.below(kind)?;
        let ask = settings(kind, &mut below, ports);
        below.finish();
        ask
    } else {
        match *kind {
            "tcp" => Some(Ask::Tcp { port: None }),
            "process" => Some(Ask::Process),
            "otp" => Some(Ask::Otp { application: None }),
            _ => {
                let advice = "say what is asked: `http: { path: /health }`, `exec: { command: … }`";
                f.fault(kind, "nothing", advice);
                None
            }
        }
    };
    if let Some(Ask::Http { port: None, .. } | Ask::Tcp { port: None }) = &ask
        && ports.is_empty()
    {
        f.fault(kind, "no port to ask on", "give the application replica_ports");
    }
    Some(Probe { ask: ask?, interval, timeout, after })
}

fn settings(kind: &str, f: &mut Fields<'_>, ports: &[PortBase]) -> Option<Ask> {
    let key = |scalar: Scalar<'_>| port_of(ports)(scalar).map(|()| scalar.text.to_owned());
    match kind {
        "http" => {
            let port = f.read("port", key);
            let path = f.required("path", http_path);
            let expect = f.read("expect", rules::whole::<u16>(100..=599)).unwrap_or(200);
            Some(Ask::Http { port, path: path?, expect })
        }
        "tcp" => Some(Ask::Tcp { port: f.read("port", key) }),
        "exec" => Some(Ask::Exec { command: f.required("command", command)? }),
        "otp" => Some(Ask::Otp { application: f.read("application", otp_application) }),
        _ => Some(Ask::Process),
    }
}

/// A name as `application:which_applications/0` lists it.
fn otp_application(scalar: Scalar<'_>) -> Checked<String> {
    let name = rules::text(scalar)?;
    match name.chars().count() <= 255 && !name.is_empty() {
        true => Ok(name),
        false => Err(Allowed("the name of an OTP application".to_owned())),
    }
}

/// The key of one of the application's ports.
pub(super) fn port_of(ports: &[PortBase]) -> impl Fn(Scalar<'_>) -> Checked<()> + '_ {
    move |scalar| {
        if ports.iter().any(|it| it.key == scalar.text) {
            return Ok(());
        }
        let known: Vec<&str> = ports.iter().map(|it| it.key.as_str()).collect();
        let known = if known.is_empty() { "there are none".to_owned() } else { known.join(", ") };
        Err(Allowed(format!("a key of the application's replica_ports ({known})")))
    }
}

/// As its agent will read it.
pub(super) fn command(scalar: Scalar<'_>) -> Checked<String> {
    let line = rules::text(scalar)?;
    match proto::words::split(&line) {
        Ok(words) if words.first().is_some_and(|it| !it.is_empty()) => Ok(line),
        Ok(_) => Err(Allowed("a command that names a program".to_owned())),
        Err(_) => Err(Allowed("a command whose quotes are closed, and no backslash at its end".to_owned())),
    }
}

/// As it goes into the first line of a request.
fn http_path(scalar: Scalar<'_>) -> Checked<String> {
    let plain =
        scalar.text.bytes().all(|it| it.is_ascii_graphic() && it != b'#') && scalar.text.len() <= 1024;
    if scalar.text.starts_with('/') && plain {
        Ok(scalar.text.to_owned())
    } else {
        Err(Allowed("a path that begins with /".to_owned()))
    }
}
