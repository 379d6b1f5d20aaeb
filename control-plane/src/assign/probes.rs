//! Probes as they go over the wire.

use proto::pb;
use proto::pb::probe::Kind;

use crate::spec::{Ask, Probe};

pub(super) fn told(probes: &[Probe]) -> Vec<pb::Probe> {
    probes.iter().map(one).collect()
}

fn one(probe: &Probe) -> pb::Probe {
    let Probe { ask, interval, timeout, after } = probe;
    let port = |port: &Option<String>| port.clone().unwrap_or_default();
    let kind = match ask {
        Ask::Process => Kind::Process(true),
        Ask::Tcp { port: key } => Kind::Tcp(pb::TcpProbe { port: port(key) }),
        Ask::Http { port: key, path, expect } => {
            Kind::Http(pb::HttpProbe { port: port(key), path: path.clone(), expect: u32::from(*expect) })
        }
        Ask::Otp { application } => {
            Kind::Otp(pb::OtpProbe { application: application.clone().unwrap_or_default() })
        }
        Ask::Exec { command } => Kind::Exec(pb::ExecProbe { command: command.clone() }),
    };
    pb::Probe {
        kind: Some(kind),
        interval_ms: interval.map_or(0, |it| it.0),
        timeout_ms: timeout.0,
        after: u32::from(*after),
    }
}
