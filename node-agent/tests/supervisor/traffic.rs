//! The upstream file of an application: who is in it, what is done about it when, and what of it outlives the agent. NGINX's
//! program is a script here that writes down what it was asked and passes it on to the real one, a reload only where one runs.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::fs::{self, Permissions};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use proto::pb;
use rustix::process::{Pid, Signal, kill_process};

use super::world::{Agent, World, eventually, kill, lives};

const PORT: u32 = 4_321;

/// An NGINX that is asked and, unless it is started, does not run: its configuration includes the file.
struct Site<'a> {
    world: &'a World,
}

impl<'a> Site<'a> {
    fn new(world: &'a World) -> Self {
        let site = Self { world };
        let folder = world.path("").display().to_string();
        let configuration = format!(
            "pid {folder}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n  access_log off;\n  include {folder}/demo.conf;\n}}\n"
        );
        fs::write(world.path("nginx.conf"), configuration).unwrap();
        // A reload of what does not run is a success, unless it is to fail.
        let script = format!(
            "#!/bin/sh\necho \"$@\" >> {folder}/asked\n\
             case \"$1\" in\n-t) exec nginx -p {folder} -c {folder}/nginx.conf -e stderr -t;;\nesac\n\
             test ! -e {folder}/runs || exec nginx -p {folder} -c {folder}/nginx.conf -e stderr \"$@\"\n\
             test ! -e {folder}/broken\n"
        );
        fs::write(world.path("nginx"), script).unwrap();
        fs::set_permissions(world.path("nginx"), Permissions::from_mode(0o755)).unwrap();
        site
    }

    /// The configuration names these ports from now on.
    fn listens(&self, ports: &[u16]) {
        let configuration = fs::read_to_string(self.world.path("nginx.conf")).unwrap();
        let (kept, _) =
            configuration.split_once("  server {").unwrap_or((configuration.trim_end_matches("}\n"), ""));
        let listens: Vec<String> = ports.iter().map(|it| format!(" listen 127.0.0.1:{it};")).collect();
        let server = format!("{kept}  server {{{} }}\n}}\n", listens.concat());
        fs::write(self.world.path("nginx.conf"), server).unwrap();
    }

    /// From now on it runs.
    async fn start(&self, port: u16) -> Nginx {
        let folder = self.world.path("");
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&folder).arg("-c").arg(folder.join("nginx.conf"));
        command.args(["-e", "stderr", "-g", "daemon off;"]).stdin(Stdio::null()).stderr(Stdio::null());
        let nginx = Nginx(command.spawn().unwrap());
        eventually("NGINX", || TcpStream::connect(("127.0.0.1", port)).ok()).await;
        fs::write(self.world.path("runs"), "").unwrap();
        nginx
    }

    fn file(&self) -> PathBuf {
        self.world.path("demo.conf")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap_or_default()
    }

    fn lists(&self, server: &str) -> bool {
        self.text().contains(&format!("server 127.0.0.1:{PORT}{server};"))
    }

    fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(self.world.path("asked")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn assignment(&self, generation: u64, version: &str) -> pb::Assignment {
        let mut assignment = self.world.assignment(generation, version);
        let app = &mut assignment.applications[0];
        app.ports = vec![pb::PortBase { key: "PORT".to_owned(), base: PORT }];
        app.ready = pb::ReadyWhen::Process.into();
        app.drain_ms = 300;
        app.nginx = Some(pb::Nginx {
            upstream_file: self.file().display().to_string(),
            upstream: "demo".to_owned(),
            port: "PORT".to_owned(),
            reload: format!("{} -s reload", self.world.path("nginx").display()),
        });
        assignment
    }

    async fn running(&self) -> Agent {
        let agent = self.world.agent().await;
        agent.assign(self.assignment(1, "0.1.0")).await;
        agent.runs("0.1.0").await;
        eventually("the ready slot in the file", || self.lists("").then_some(())).await;
        // It was checked and read: until then it gives way to none.
        let pending = self.world.path("var/agent/traffic/demo/pending");
        eventually("the end of it", || (!pending.exists()).then_some(())).await;
        agent
    }
}

struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let master = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).unwrap();
        let _ = kill_process(master, Signal::TERM);
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn who_is_to_stop_is_taken_out_first_and_goes_on_for_its_drain() {
    let world = World::new();
    let site = Site::new(&world);
    let agent = site.running().await;
    let mode = fs::metadata(site.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    let pid = agent.report().pid;

    let mut withdrawn = site.assignment(2, "0.1.0");
    withdrawn.slots[0].restart_id = "once".to_owned();
    agent.assign(withdrawn).await;
    eventually("nobody in the file", || site.lists(" down").then_some(())).await;
    assert!(lives(pid), "it was stopped before its drain");
    let after =
        agent.reports("its successor", |it| it.pid != pid && it.state() == pb::SlotState::Stable).await;
    assert_eq!((after.forced_restarts, after.crash_restarts), (1, 0));
    eventually("its successor in the file", || site.lists("").then_some(())).await;
    // Each time asked, then reloaded.
    eventually("the last reload", || (site.asked().last()? == "-s reload").then_some(())).await;
    let asked = site.asked();
    assert!(asked.chunks(2).all(|it| it == ["-t", "-s reload"]), "{asked:?}");
    agent.end().await;
}

#[tokio::test]
async fn who_crashes_is_taken_out_and_who_was_never_ready_is_not_drained() {
    let world = World::new();
    let site = Site::new(&world);
    let agent = site.running().await;
    let before = agent.report();
    // So that it stays away until it is asked back: NGINX may take longer over the first crash than any pause.
    let mut patient = site.assignment(2, "0.1.0");
    patient.applications[0].backoff_min_ms = 600_000;
    patient.applications[0].backoff_max_ms = 600_000;
    agent.assign(patient.clone()).await;
    eventually("what was assigned", || (agent.generation() == 2).then_some(())).await;
    for crashes in 1..=2 {
        let pid = agent.reports("a start", |it| it.pid > 0 && it.crash_restarts == crashes - 1).await.pid;
        kill(pid);
    }
    agent.reports("its pause", |it| it.state() == pb::SlotState::BackingOff).await;
    eventually("nobody in the file", || site.lists(" down").then_some(())).await;
    patient.generation = 3;
    patient.slots[0].restart_id = "now".to_owned();
    agent.assign(patient).await;
    let back = agent.runs("0.1.0").await;
    assert!(back.pid != before.pid && back.crash_restarts == 2, "{back:?}");
    eventually("its successor in the file", || site.lists("").then_some(())).await;
    agent.end().await;
}

#[tokio::test]
async fn a_file_of_somebody_else_is_left_as_it_is_and_said() {
    let world = World::new();
    let site = Site::new(&world);
    fs::write(site.file(), "upstream mine { server 127.0.0.1:1; }\n").unwrap();
    let agent = world.agent().await;
    agent.assign(site.assignment(1, "0.1.0")).await;
    let report = agent.reports("the fault", |it| it.fault.contains("was not written by DeployEx")).await;
    assert!(report.fault.contains("demo.conf"), "{}", report.fault);
    assert!(site.text().starts_with("upstream mine"));
    // Removed, it is written with the next try.
    fs::remove_file(site.file()).unwrap();
    agent.reports("nothing wrong", |it| it.fault.is_empty() && it.state() == pb::SlotState::Stable).await;
    assert!(site.lists(""), "{}", site.text());
    agent.end().await;
}

#[tokio::test]
async fn what_an_agent_left_under_way_the_next_one_brings_to_its_end() {
    let world = World::new();
    let site = Site::new(&world);
    fs::write(world.path("broken"), "").unwrap();
    let agent = world.agent().await;
    agent.assign(site.assignment(1, "0.1.0")).await;
    agent.reports("the fault", |it| it.fault.contains("NGINX is not reloaded")).await;
    eventually("what passed the check", || site.lists("").then_some(())).await;
    agent.runs("0.1.0").await;
    agent.end().await;

    fs::remove_file(world.path("broken")).unwrap();
    let before = site.asked().len();
    let agent = world.agent().await;
    eventually("what was left to do", || (site.asked()[before..] == ["-t", "-s reload"]).then_some(())).await;
    // It is over once the reload has taken hold.
    let pending = world.path("var/agent/traffic/demo/pending");
    eventually("its note removed", || (!pending.exists()).then_some(())).await;
    agent.runs("0.1.0").await;
    agent.end().await;

    // Now there is nothing left, and the file says what it should: nothing is done.
    let (before, written) = (site.asked().len(), fs::metadata(site.file()).unwrap().modified().unwrap());
    let agent = world.agent().await;
    agent.runs("0.1.0").await;
    let mut restart = site.assignment(2, "0.1.0");
    restart.applications[0].stable_after_ms = 50;
    agent.assign(restart).await;
    eventually("what was assigned", || (agent.generation() == 2).then_some(())).await;
    assert_eq!(site.asked().len(), before);
    assert_eq!(fs::metadata(site.file()).unwrap().modified().unwrap(), written);
    agent.end().await;
}

#[tokio::test]
async fn a_file_that_nginx_refuses_gives_way_to_the_last_good_one() {
    let world = World::new();
    let site = Site::new(&world);
    let agent = site.running().await;
    let good = site.text();
    // The name that is wanted is taken by now.
    let configuration = fs::read_to_string(world.path("nginx.conf")).unwrap();
    let taken = configuration.replace("http {", "http {\n  upstream other { server 127.0.0.1:1; }");
    fs::write(world.path("nginx.conf"), taken).unwrap();
    let mut assignment = site.assignment(2, "0.1.0");
    if let Some(nginx) = &mut assignment.applications[0].nginx {
        nginx.upstream = "other".to_owned();
    }
    agent.assign(assignment).await;
    let report = agent.reports("NGINX's words", |it| it.fault.contains("duplicate upstream")).await;
    assert!(report.state() == pb::SlotState::Stable && report.fault.contains("tried again"), "{report:?}");
    eventually("the last good one", || (site.text() == good).then_some(())).await;
    agent.assign(site.assignment(3, "0.1.0")).await;
    agent.reports("nothing wrong", |it| it.fault.is_empty()).await;
    assert_eq!(site.text(), good);
    agent.end().await;
}

#[tokio::test]
async fn a_reload_that_nginx_cannot_follow_is_said_and_tried_again() {
    let world = World::new();
    let site = Site::new(&world);
    let agent = site.running().await;
    let own = free_port();
    site.listens(&[own]);
    let _nginx = site.start(own).await;
    // Another program has a port that it is to listen on from now on: neither the check nor the reload minds.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().port();
    site.listens(&[own, taken]);
    let mut restart = site.assignment(2, "0.1.0");
    restart.slots[0].restart_id = "once".to_owned();
    agent.assign(restart).await;
    let report = agent.reports("the fault", |it| it.fault.contains("error log says why")).await;
    assert!(report.fault.contains("it is tried again"), "{}", report.fault);
    let pending = world.path("var/agent/traffic/demo/pending");
    assert!(pending.exists(), "it is not over");

    drop(other);
    agent
        .reports("the restart, and nothing wrong any more", |it| {
            it.fault.is_empty() && it.forced_restarts == 1 && it.state() == pb::SlotState::Stable
        })
        .await;
    eventually("its successor in the file", || site.lists("").then_some(())).await;
    eventually("the end of it", || (!pending.exists()).then_some(())).await;
    eventually("NGINX on its new port", || TcpStream::connect(("127.0.0.1", taken)).ok()).await;
    agent.end().await;
}

#[tokio::test]
async fn settings_that_change_hold_whatever_withdrawn_slots_were_told_last() {
    let world = World::new();
    let site = Site::new(&world);
    // The spare of a deployment that is over, from before the application had `nginx`.
    let mut both = site.assignment(1, "0.1.0");
    both.applications[0].nginx = None;
    both.slots.push(pb::SlotAssignment { slot: 2, ..both.slots[0].clone() });
    let agent = world.agent().await;
    agent.assign(both.clone()).await;
    agent.runs("0.1.0").await;
    eventually("both", || (world.living() == 2).then_some(())).await;
    both.generation = 2;
    both.slots.pop();
    agent.assign(both).await;
    eventually("the end of the spare", || (world.living() == 1).then_some(())).await;

    agent.assign(site.assignment(3, "0.1.0")).await;
    eventually("the ready slot in the file", || site.lists("").then_some(())).await;
    agent.end().await;
}

#[tokio::test]
async fn a_slot_that_cannot_be_taken_up_keeps_its_line_and_does_not_hold_up_the_others() {
    let world = World::new();
    let site = Site::new(&world);
    let mut both = site.assignment(1, "0.1.0");
    both.slots.push(pb::SlotAssignment { slot: 2, ..both.slots[0].clone() });
    let agent = world.agent().await;
    agent.assign(both).await;
    let unknown = agent.runs("0.1.0").await;
    let second = format!("server 127.0.0.1:{};", PORT + 1);
    eventually("both in the file", || (site.lists("") && site.text().contains(&second)).then_some(())).await;
    agent.end().await;
    // Nobody answers for the first one's process, and nobody can be put in the keeper's place.
    world.kill_keeper().await;

    let mut agent = world.agent_with(&world.path("keeper")).await;
    agent.reports("the fault", |it| it.fault.contains("it is left alone")).await;
    let other = world.starts().into_iter().map(|(_, pid)| pid).find(|pid| *pid != unknown.pid).unwrap();
    kill(other);
    eventually("the other one out of the file", || (!site.text().contains(&second)).then_some(())).await;
    assert!(lives(unknown.pid) && site.lists(""), "{}", site.text());
    let of_traffic = |it: &pb::AgentEvent| it.kind == "traffic_failed";
    let said = eventually("the event", || agent.events.try_recv().ok().filter(of_traffic)).await.text;
    assert!(said.contains("slot 1 is not known"), "{said}");
    agent.end().await;
}
