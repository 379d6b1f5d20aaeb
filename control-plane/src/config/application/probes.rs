//! `ready` and `live`: what is asked of a replica, and how often.
//!
//! In force are the default (TCP on the first port) and `process`; every other probe is checked here and kept for later.

use crate::config::fields::{Fields, check};
use crate::config::rules::{self, Allowed, Checked, Scalar};
use crate::config::tree::{Node, Value};
use crate::spec::{PortBase, ReadyWhen};

const KINDS: [&str; 5] = ["http", "tcp", "exec", "otp", "process"];

/// What `ready` means today. Only `process` alone, with nothing set beside it, is in force as it is written.
pub(super) fn ready(f: &mut Fields<'_>, ports: &[PortBase]) -> ReadyWhen {
    if let Some(Node { value: Value::Scalar { .. }, .. }) = f.node("ready") {
        f.read("ready", word);
        return ReadyWhen::Process;
    }
    let kinds = list(f, "ready", ports);
    if !kinds.is_empty() && kinds.iter().all(|it| *it == "process") {
        ReadyWhen::Process
    } else {
        ReadyWhen::Default
    }
}

/// Checks a list of probes; the kind of each.
pub(super) fn list(f: &mut Fields<'_>, key: &'static str, ports: &[PortBase]) -> Vec<&'static str> {
    let mut kinds = Vec::new();
    for item in f.items(key, "") {
        if let Value::Scalar { .. } = item.node.value {
            kinds.extend(check(f.sink, item.node, item.path.as_str(), bare));
            continue;
        }
        let Some(mut probe) = Fields::open(f.sink, item.node, item.path) else { continue };
        kinds.extend(one(&mut probe, ports));
        probe.finish();
    }
    kinds
}

/// `ready: process`
fn word(scalar: Scalar<'_>) -> Checked<()> {
    match scalar.text {
        "process" => Ok(()),
        _ => Err(Allowed("process, or a list of probes such as [{ http: { path: /health } }]".to_owned())),
    }
}

/// `- process`
fn bare(scalar: Scalar<'_>) -> Checked<&'static str> {
    match scalar.text {
        "process" => Ok("process"),
        _ => Err(Allowed("process, or a probe such as { tcp: { port: PORT } }".to_owned())),
    }
}

fn one(f: &mut Fields<'_>, ports: &[PortBase]) -> Option<&'static str> {
    f.read("interval_ms", rules::millis(100..=3_600_000));
    f.read("timeout_ms", rules::millis(10..=3_600_000));
    f.read("after", rules::whole::<u16>(1..=1_000));
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
    // `process:` and `otp:` need nothing below them.
    if f.has(kind) {
        if let Some(mut below) = f.below(kind) {
            settings(kind, &mut below, ports);
            below.finish();
        }
    } else if matches!(*kind, "http" | "exec") {
        f.fault(kind, "nothing", "say what is asked: `http: { path: /health }`, `exec: { command: … }`");
    }
    Some(kind)
}

fn settings(kind: &str, f: &mut Fields<'_>, ports: &[PortBase]) {
    match kind {
        "http" => {
            f.read("port", port_of(ports));
            f.required("path", http_path);
            f.read("expect", rules::whole::<u16>(100..=599));
        }
        "tcp" => {
            f.read("port", port_of(ports));
        }
        "exec" => {
            f.required("command", rules::text);
        }
        "otp" => {
            f.read("application", rules::text);
        }
        _ => {}
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

fn http_path(scalar: Scalar<'_>) -> Checked<()> {
    let plain = !scalar.text.contains(|c: char| c.is_whitespace() || c.is_control());
    if scalar.text.starts_with('/') && plain {
        Ok(())
    } else {
        Err(Allowed("a path that begins with /".to_owned()))
    }
}
