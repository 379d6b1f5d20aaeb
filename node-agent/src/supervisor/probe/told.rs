//! Which probes a replica has, from its application's settings as they came over the wire: pure.

use std::time::Duration;

use proto::pb;
use proto::pb::probe::Kind;

use super::super::launch;
use super::{Ask, Pace, Probe};

const TIMEOUT: Duration = Duration::from_secs(2);
const LIVE_AFTER: u32 = 3;

/// What makes a replica of these settings ready; never empty. Where no probes are given that this agent knows: TCP on its
/// first port where it has ports, else that its process lives.
pub(in crate::supervisor) fn ready(app: Option<&pb::Application>, slot: u16) -> Vec<Probe> {
    let Some(app) = app else { return vec![usual(Ask::Process)] };
    let ports = launch::ports(app, slot);
    let probes = listed(app, &app.ready_probes, &ports, 1);
    if !probes.is_empty() {
        return probes;
    }
    let ask = match (app.ready(), ports.first()) {
        (pb::ReadyWhen::Default, Some((_, port))) => Ask::Tcp { port: *port },
        _ => Ask::Process,
    };
    vec![usual(ask)]
}

/// What it is asked later; empty: nothing.
pub(in crate::supervisor) fn live(app: Option<&pb::Application>, slot: u16) -> Vec<Probe> {
    app.map(|app| listed(app, &app.live_probes, &launch::ports(app, slot), LIVE_AFTER)).unwrap_or_default()
}

/// Whether these settings let anybody be asked later at all: to switch that off works at once, whoever was launched how.
pub(in crate::supervisor) fn is_asked_live(app: Option<&pb::Application>) -> bool {
    app.is_some_and(|app| !app.live_probes.is_empty())
}

fn usual(ask: Ask) -> Probe {
    Probe { ask, pace: Pace::Usual, timeout: TIMEOUT, after: 1 }
}

fn listed(app: &pb::Application, probes: &[pb::Probe], ports: &[(String, u16)], after: u32) -> Vec<Probe> {
    let one = |probe: &pb::Probe| {
        Some(Probe {
            ask: ask(probe.kind.as_ref()?, &app.name, ports),
            pace: named(probe.interval_ms).map_or(Pace::Usual, Pace::Every),
            timeout: named(probe.timeout_ms).unwrap_or(TIMEOUT),
            after: if probe.after == 0 { after } else { probe.after },
        })
    };
    // One that only a newer agent knows is left out.
    probes.iter().filter_map(one).collect()
}

/// `None`: it is left to us.
fn named(millis: u64) -> Option<Duration> {
    (millis > 0).then(|| Duration::from_millis(millis))
}

fn ask(kind: &Kind, app: &str, ports: &[(String, u16)]) -> Ask {
    let on = |key: &str, ask: &dyn Fn(u16) -> Ask| {
        let port = match key {
            "" => ports.first(),
            key => ports.iter().find(|(it, _)| it == key),
        };
        port.map_or_else(|| Ask::NoSuchPort { key: key.to_owned() }, |(_, port)| ask(*port))
    };
    match kind {
        Kind::Process(_) => Ask::Process,
        Kind::Tcp(tcp) => on(&tcp.port, &|port| Ask::Tcp { port }),
        Kind::Http(http) => on(&http.port, &|port| Ask::Http {
            port,
            path: http.path.clone(),
            expect: u16::try_from(http.expect).ok().filter(|it| *it > 0).unwrap_or(200),
        }),
        Kind::Exec(exec) => Ask::Exec { line: exec.command.clone() },
        Kind::Otp(otp) if otp.application.is_empty() => Ask::Otp { application: app.to_owned() },
        Kind::Otp(otp) => Ask::Otp { application: otp.application.clone() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_otp_probe_is_of_the_application_of_the_replicas_own_name_unless_it_says_another() {
        let otp = |application: &str| {
            let kind = Some(Kind::Otp(pb::OtpProbe { application: application.to_owned() }));
            let probe = pb::Probe { kind, ..Default::default() };
            let app =
                pb::Application { name: "shop".to_owned(), ready_probes: vec![probe], ..Default::default() };
            ready(Some(&app), 1).remove(0).ask
        };
        let of = |application: &str| Ask::Otp { application: application.to_owned() };
        assert_eq!([otp(""), otp("till")], [of("shop"), of("till")]);
    }

    fn app() -> pb::Application {
        let port = |key: &str, base| pb::PortBase { key: key.to_owned(), base };
        pb::Application { ports: vec![port("PORT", 4000), port("ADMIN", 5000)], ..Default::default() }
    }

    fn asks(probes: &[Probe]) -> Vec<Ask> {
        probes.iter().map(|it| it.ask.clone()).collect()
    }

    #[test]
    fn without_probes_it_is_the_first_port_or_the_process() {
        let mut app = app();
        assert_eq!(asks(&ready(Some(&app), 2)), [Ask::Tcp { port: 4001 }]);
        app.ready = pb::ReadyWhen::Process.into();
        assert_eq!(asks(&ready(Some(&app), 2)), [Ask::Process]);
        assert_eq!(asks(&ready(Some(&pb::Application::default()), 1)), [Ask::Process]);
        assert_eq!(asks(&ready(None, 1)), [Ask::Process]);
        assert!(live(Some(&app), 1).is_empty() && live(None, 1).is_empty());
    }

    #[test]
    fn probes_ask_on_the_slots_own_ports() {
        let mut app = app();
        let probe = |kind| pb::Probe { kind: Some(kind), ..Default::default() };
        let http = |port: &str, expect| {
            probe(Kind::Http(pb::HttpProbe { port: port.to_owned(), path: "/up".to_owned(), expect }))
        };
        let exec = probe(Kind::Exec(pb::ExecProbe { command: "true".to_owned() }));
        app.ready_probes = vec![http("", 0), http("ADMIN", 204), http("GONE", 200), exec];
        let path = || "/up".to_owned();
        assert_eq!(
            asks(&ready(Some(&app), 3)),
            [
                Ask::Http { port: 4002, path: path(), expect: 200 },
                Ask::Http { port: 5002, path: path(), expect: 204 },
                Ask::NoSuchPort { key: "GONE".to_owned() },
                Ask::Exec { line: "true".to_owned() },
            ]
        );
        app.live_probes =
            vec![pb::Probe { after: 7, interval_ms: 5, ..probe(Kind::Process(true)) }, http("", 0)];
        let [first, second] = &live(Some(&app), 1)[..] else { panic!("two") };
        assert_eq!(
            (first.after, first.pace, first.timeout),
            (7, Pace::Every(Duration::from_millis(5)), TIMEOUT)
        );
        assert_eq!((second.after, second.pace), (LIVE_AFTER, Pace::Usual));
    }

    #[test]
    fn what_only_a_newer_agent_knows_is_left_out() {
        let mut app = app();
        app.ready_probes = vec![pb::Probe::default()];
        assert_eq!(asks(&ready(Some(&app), 1)), [Ask::Tcp { port: 4000 }]);
    }
}
