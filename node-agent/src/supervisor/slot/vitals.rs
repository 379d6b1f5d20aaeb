//! Sampling the VM of a slot's process over the connection to its node: what it is when it is met, and its figures every two
//! seconds, as rates where they only grow.

use std::sync::Arc;
use std::time::Duration;

use proto::pb;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::super::{Shared, SlotId};
use super::node::Said;
use super::turns::Turns;
use super::watched::RememberedLevels;
use crate::beam::AskError;
use crate::beam::about::{self, About};
use crate::beam::schedulers::Schedulers;
use crate::beam::thresholds::Watched;
use crate::beam::vitals::{self, Vitals};
use crate::beam::web::{self, Endpoint};
use crate::clock;
use crate::dist::connection::Connection;
use crate::dist::link::Standing;
use crate::releases::logo;
use crate::supervisor::acts::chain;

const EVERY: Duration = Duration::from_secs(2);
/// So often what a system is is asked once more: every minute.
const ABOUT_EVERY: u32 = 30;

/// Whether a round asks what the system is. Within the first minute each does: a node is met while it boots, and loads its
/// applications one by one. After a hot upgrade the first minute begins anew.
fn asks_about(round: u32) -> bool {
    round < ABOUT_EVERY || round.is_multiple_of(ABOUT_EVERY)
}

/// The number of the round that follows this one.
fn next_round(last: Option<u32>, upgrades: &mut watch::Receiver<u64>) -> u32 {
    // Whoever tells of upgrades is gone when the slot is; a round more asks for nobody.
    let upgraded = upgrades.has_changed().unwrap_or(false);
    if upgraded {
        upgrades.mark_unchanged();
    }
    last.filter(|_| !upgraded).map_or(0, |it| it.wrapping_add(1))
}

/// Whether a round asks where it is reached, which takes some more calls; its endpoints start last.
fn asks_where(round: u32) -> bool {
    round.is_multiple_of(if round < ABOUT_EVERY { 5 } else { ABOUT_EVERY })
}

/// Whose VM it is, and what of it is watched for its limit.
pub(super) struct Sampled {
    pub(super) id: SlotId,
    pub(super) pid: u32,
    pub(super) shared: Arc<Shared>,
    pub(super) watched: watch::Receiver<Watched>,
    pub(super) levels: RememberedLevels,
    /// Changes whenever another release runs in it.
    pub(super) upgrades: watch::Receiver<u64>,
}

impl Sampled {
    /// While there is a connection. Ends with whoever tells how it stands.
    pub(super) async fn run(mut self, mut standing: watch::Receiver<Standing>, said: watch::Sender<Said>) {
        loop {
            let connection = match &*standing.borrow_and_update() {
                Standing::Connected { connection, .. } => Some(connection.for_another()),
                Standing::Dialling | Standing::Without(_) => None,
            };
            let sampling = async {
                match connection {
                    Some(connection) => self.over(&connection, &said).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased; // a connection that is gone comes before asking over it
                changed = standing.changed() => if changed.is_err() { return },
                () = sampling => {}
            }
        }
    }

    async fn over(&mut self, connection: &Connection, said: &watch::Sender<Said>) {
        let mut turns = Turns::every(EVERY);
        let (mut known, mut endpoints): (Option<About>, Vec<Endpoint>) = (None, Vec::new());
        let mut logo = self.has_logo().await;
        let mut before: Option<Before> = None;
        let mut schedulers = Schedulers::of(self.pid);
        let mut last = None;
        loop {
            turns.next().await;
            let round = next_round(last, &mut self.upgrades);
            if round == 0 && last.is_some() {
                logo = self.has_logo().await;
            }
            last = Some(round);
            if asks_about(round) || known.is_none() {
                match about::look(connection, self.id.app.as_str()).await {
                    Ok(about) => {
                        // Told again only where something of it is new: its age is not.
                        let is_same = |it: &About| About { up_ms: about.up_ms, ..it.clone() } == about;
                        let now = self.endpoints(connection, &about, (round, &endpoints)).await;
                        if !known.as_ref().is_some_and(is_same) || now != endpoints {
                            let vm = about_message(&about, &now, clock::unix_ms());
                            tell(said, pb::Vm { logo, ..vm });
                        }
                        (known, endpoints) = (Some(about), now);
                    }
                    Err(error) => {
                        fail(said, &error);
                        continue;
                    }
                }
            }
            match vitals::look(connection).await {
                Ok(now) => {
                    let (at, percent) = (Instant::now(), schedulers.percent());
                    if let Some(earlier) = &before {
                        let word = known.as_ref().map_or(8, |it| it.word);
                        let sample = self.sample(earlier, &now, at, (percent, word));
                        self.shared.vm_samples.push(sample, clock::now());
                    }
                    if let Some(about) = &known {
                        self.look_at_levels(&now, about, said);
                    }
                    before = Some(Before { vitals: now, at });
                    well(said);
                }
                Err(error) => fail(said, &error),
            }
        }
    }

    async fn has_logo(&self) -> bool {
        let (release, app) = (self.shared.release_folder(&self.id).current(), self.id.app.clone());
        let look = tokio::task::spawn_blocking(move || logo::is_there(&release, &app));
        // One that cannot be looked for is not there.
        timeout(EVERY, look).await.is_ok_and(|it| it.unwrap_or(false))
    }

    /// Where its web applications are reached; what was known `before` stays where they cannot be asked.
    async fn endpoints(
        &self,
        connection: &Connection,
        about: &About,
        (round, before): (u32, &[Endpoint]),
    ) -> Vec<Endpoint> {
        if about.phoenix.is_empty() {
            return Vec::new();
        }
        if !asks_where(round) {
            return before.to_vec();
        }
        web::look(connection).await.unwrap_or_else(|error| {
            tracing::debug!(app = %self.id.app, slot = %self.id.slot, error = chain(&error), "its endpoints do not say where they are reached");
            before.to_vec()
        })
    }

    fn sample(
        &self,
        before: &Before,
        now: &Vitals,
        at: Instant,
        (percent, word): (Option<f64>, u64),
    ) -> pb::VmSample {
        let passed = at.duration_since(before.at).as_secs_f64().max(0.001);
        let Before { vitals: was, .. } = before;
        pb::VmSample {
            app: self.id.app.to_string(),
            slot: u32::from(self.id.slot.number()),
            age_ms: 0,
            memory_total: now.memory.total,
            memory_processes: now.memory.processes,
            memory_system: now.memory.system,
            memory_atom: now.memory.atom,
            memory_binary: now.memory.binary,
            memory_code: now.memory.code,
            memory_ets: now.memory.ets,
            processes: now.processes,
            ports: now.ports,
            atoms: now.atoms,
            ets_tables: now.ets_tables,
            run_queue: now.run_queues.iter().sum(),
            longest_run_queue: now.run_queues.iter().copied().max().unwrap_or(0),
            scheduler_percent: percent,
            reductions_per_second: rate(was.reductions, now.reductions, passed),
            collections_per_second: rate(was.collections, now.collections, passed),
            reclaimed_per_second: rate(
                was.reclaimed_words.saturating_mul(word),
                now.reclaimed_words.saturating_mul(word),
                passed,
            ),
            input_per_second: rate(was.input, now.input, passed),
            output_per_second: rate(was.output, now.output, passed),
        }
    }
}

struct Before {
    vitals: Vitals,
    at: Instant,
}

/// What is less than before began anew.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn rate(before: u64, now: u64, seconds: f64) -> f64 {
    now.saturating_sub(before) as f64 / seconds
}

fn about_message(about: &About, endpoints: &[Endpoint], unix_ms: u64) -> pb::Vm {
    let About { otp, erts, application, elixir, gleam_stdlib, phoenix, .. } = about.clone();
    pb::Vm {
        otp,
        erts,
        application,
        elixir,
        gleam_stdlib,
        phoenix,
        started_unix_ms: unix_ms.saturating_sub(about.up_ms),
        process_limit: about.process_limit,
        port_limit: about.port_limit,
        atom_limit: about.atom_limit,
        ets_limit: about.ets_limit,
        schedulers: about.schedulers,
        fault: String::new(),
        levels: Vec::new(),
        urls: endpoints.iter().map(|it| it.url.clone()).collect(),
        logo: false,
    }
}

fn tell(said: &watch::Sender<Said>, vm: pb::Vm) {
    said.send_modify(|said| {
        let levels = said.vm.take().map(|it| it.levels).unwrap_or_default();
        said.vm = Some(pb::Vm { levels, ..vm });
    });
}

/// Said once, however often it fails.
fn fail(said: &watch::Sender<Said>, error: &AskError) {
    let fault = format!("its figures cannot be read: {}", chain(error));
    said.send_if_modified(|said| {
        let vm = said.vm.get_or_insert_default();
        let is_new = vm.fault != fault;
        vm.fault = fault;
        is_new
    });
}

fn well(said: &watch::Sender<Said>) {
    said.send_if_modified(|said| {
        said.vm.as_mut().is_some_and(|vm| !std::mem::take(&mut vm.fault).is_empty())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_a_rate_and_what_began_anew_is_none() {
        assert!((rate(1_000, 5_000, 2.0) - 2_000.0).abs() < f64::EPSILON);
        assert!(rate(5_000, 10, 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn what_is_met_while_it_boots_is_asked_again_soon_and_then_seldom() {
        assert!((0..ABOUT_EVERY).all(asks_about));
        let (upgraded, mut upgrades) = watch::channel(0);
        assert_eq!((next_round(None, &mut upgrades), next_round(Some(70), &mut upgrades)), (0, 71));
        upgraded.send_modify(|it| *it += 1);
        assert_eq!((next_round(Some(71), &mut upgrades), next_round(Some(0), &mut upgrades)), (0, 1));
        let later: Vec<u32> = (ABOUT_EVERY..100).filter(|it| asks_about(*it)).collect();
        assert_eq!(later, [30, 60, 90]);
        // Only a round that asks what it is asks where it is reached.
        let web: Vec<u32> = (0..100).filter(|it| asks_where(*it)).collect();
        assert_eq!(web, [0, 5, 10, 15, 20, 25, 30, 60, 90]);
    }

    #[test]
    fn what_a_vm_is_takes_back_no_limit_that_it_has_passed() {
        let levels = vec![pb::VmLevel { count: 7, ..Default::default() }];
        let vm = pb::Vm { levels: levels.clone(), ..Default::default() };
        let (said, told) = watch::channel(Said { vm: Some(vm), ..Said::default() });
        tell(&said, pb::Vm { otp: "25".to_owned(), ..Default::default() });
        let vm = told.borrow().vm.clone().unwrap();
        assert_eq!((vm.otp.as_str(), vm.levels), ("25", levels));
    }

    #[test]
    fn a_fault_is_said_once_and_taken_back() {
        let (said, mut told) = watch::channel(Said::default());
        let odd = AskError::Odd("nothing".to_owned());
        fail(&said, &odd);
        assert!(told.borrow_and_update().vm.as_ref().unwrap().fault.ends_with("than was asked: nothing"));
        fail(&said, &odd);
        assert!(!told.has_changed().unwrap());
        well(&said);
        assert_eq!(told.borrow_and_update().vm.as_ref().unwrap().fault, "");
        well(&said);
        assert!(!told.has_changed().unwrap());
    }
}
