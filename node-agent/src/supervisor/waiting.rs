//! Which settings of an application wait for the next full deployment, or a restart, of a replica: those that a start takes and
//! that have changed since. A hot upgrade brings none of them. Pure; what counts at once is not looked at.

use std::collections::BTreeMap;

use proto::pb;

/// More of them say nothing more.
const NAMED: usize = 20;

/// As a configuration calls them. `launched`: what runs was started with.
pub(super) fn waiting(launched: &pb::Application, wanted: &pb::Application) -> Vec<String> {
    let (had, has) = (AtStart::of(launched), AtStart::of(wanted));
    let keys = had.env.keys().chain(has.env.keys().filter(|it| !had.env.contains_key(*it)));
    let env = keys.filter(|key| had.env.get(*key) != has.env.get(*key)).map(|key| format!("env[{key}]"));
    let others = had.others.iter().zip(&has.others).filter(|(had, has)| had != has);
    env.chain(others.map(|((name, _), _)| (*name).to_owned())).take(NAMED).collect()
}

/// What a start takes, without what makes no difference to it.
struct AtStart<'a> {
    env: BTreeMap<&'a str, &'a str>,
    others: [(&'static str, String); 8],
}

impl<'a> AtStart<'a> {
    /// Named to the last field, so that a new one cannot be forgotten.
    fn of(app: &'a pb::Application) -> Self {
        let pb::Application {
            name: _,
            language,
            env,
            ports,
            env_file,
            run_as_user,
            run_as_group,
            cookie,
            distribution,
            ready,
            ready_probes,
            live_probes,
            // These count at once.
            stable_after_ms: _,
            stop_grace_ms: _,
            backoff_min_ms: _,
            backoff_max_ms: _,
            backoff_reset_after_ms: _,
            pre_commands_timeout_ms: _,
            nginx: _,
            drain_ms: _,
            limits: _,
            monitoring: _,
            cluster: _,
            telemetry_events: _,
        } = app;
        let env: BTreeMap<&str, &str> = env.iter().map(|it| (it.key.as_str(), it.value.as_str())).collect();
        // It counts only where nobody sets another.
        let cookie = if env.contains_key("RELEASE_COOKIE") { "" } else { cookie };
        let mut ports: Vec<_> = ports.iter().map(|it| (&it.key, it.base)).collect();
        ports.sort();
        let sorted = |probes: &[pb::Probe]| {
            let mut probes: Vec<String> = probes.iter().map(|it| format!("{it:?}")).collect();
            probes.sort();
            probes.join("\n")
        };
        let others = [
            ("env_file", env_file.clone()),
            ("language", language.to_string()),
            ("run_as", format!("{run_as_user}:{run_as_group}")),
            ("the cookie", cookie.to_owned()),
            ("distribution", format!("{:?}", distribution.clone().unwrap_or_default())),
            ("replica_ports", format!("{ports:?}")),
            ("ready", format!("{ready}\n{}", sorted(ready_probes))),
            ("live", sorted(live_probes)),
        ];
        Self { env, others }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> pb::Application {
        let entry = |key: &str, value: &str| pb::EnvEntry { key: key.to_owned(), value: value.to_owned() };
        pb::Application {
            name: "shop".to_owned(),
            ports: vec![
                pb::PortBase { key: "PORT".to_owned(), base: 4_000 },
                pb::PortBase { key: "ADMIN".to_owned(), base: 5_000 },
            ],
            env: vec![entry("A", "1"), entry("B", "2"), entry("C", "3")],
            ..pb::Application::default()
        }
    }

    #[test]
    fn what_a_start_takes_is_named_and_what_counts_at_once_is_not() {
        let launched = app();
        let with = |change: &dyn Fn(&mut pb::Application)| {
            let mut wanted = app();
            change(&mut wanted);
            waiting(&launched, &wanted)
        };
        assert_eq!(with(&|_| {}), Vec::<String>::new());
        assert_eq!(with(&|it| it.env.reverse()), Vec::<String>::new());
        let env = with(&|it| {
            it.env[0].value = "s3cret".to_owned();
            it.env[1].key = "D".to_owned();
        });
        assert_eq!(env, ["env[A]", "env[B]", "env[D]"], "names alone");
        let others = with(&|it| {
            it.env_file = "/etc/shop".to_owned();
            it.run_as_user = "shop".to_owned();
            it.cookie = "other".to_owned();
            it.distribution = Some(pb::Distribution { host: "a.example".to_owned(), ..Default::default() });
            it.live_probes.push(pb::Probe::default());
        });
        assert_eq!(others, ["env_file", "run_as", "the cookie", "distribution", "live"]);
        let at_once = with(&|it| {
            (it.drain_ms, it.stop_grace_ms, it.backoff_min_ms) = (7, 8, 9);
            it.limits = Some(pb::Limits::default());
            it.nginx = Some(pb::Nginx::default());
        });
        assert_eq!(at_once, Vec::<String>::new());
        let no_difference = with(&|it| {
            it.distribution = Some(pb::Distribution::default());
            it.ports.reverse();
        });
        assert_eq!(no_difference, Vec::<String>::new());
        let both = |cookie: &str| {
            let mut app = app();
            let (key, value) = ("RELEASE_COOKIE".to_owned(), "own".to_owned());
            app.env.push(pb::EnvEntry { key, value });
            app.cookie = cookie.to_owned();
            app
        };
        assert_eq!(waiting(&both("a"), &both("b")), Vec::<String>::new());
        let many = with(&|it| {
            it.env =
                (0..50).map(|nth| pb::EnvEntry { key: format!("K{nth}"), ..Default::default() }).collect();
        });
        assert_eq!(many.len(), NAMED);
    }
}
