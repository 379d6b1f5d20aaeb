//! What people want: releases, restarts and other settings; that a rollout is paused, goes on, is promoted or given up; that a
//! host is cordoned, drained, opened again, removed, or joins. Nobody asks first whether it is a good moment.

use control_plane::clock::Time;
use control_plane::fleet::{RestartWish, Wish, WishedBy};
use control_plane::rollout::{Said, Steering, simulation};
use proto::ids::RestartId;
use proto::state::Service;

use crate::agent::Host;
use crate::laws::Checked;
use crate::network::Due;
use crate::releases::{RELEASES, has_pre_commands, release};
use crate::seen::Deed;
use crate::settings;
use crate::world::World;

/// A fleet grows no larger.
const MOST_HOSTS: usize = 7;

impl World {
    pub(crate) fn wish_for_any(&mut self) {
        let number = 1 + u8::try_from(self.dice.below(u64::from(RELEASES))).unwrap();
        self.wish_for(number);
    }

    pub(crate) fn wish_for(&mut self, number: u8) {
        self.wishes += 1;
        let release = release(number);
        let pre_commands = has_pre_commands(&release);
        // Of which a person may ask for what is being left.
        let by = match self.dice.below(3) {
            0 => WishedBy::Person("somebody".to_owned()),
            _ => WishedBy::Bucket,
        };
        self.note(|_| format!("{} is wished by {by:?}", release.version));
        self.fleet.wanted = Some(Wish { release, pre_commands, by, at: Time(self.wishes) });
        self.fleet.generation += 1;
        self.plans_within(200);
    }

    /// The configuration says something else of everything.
    pub(crate) fn change_settings(&mut self) {
        let hosts = self.fleet.nodes.len();
        if let Some(spec) = &mut self.fleet.spec {
            settings::draw(spec, &mut self.dice, hosts);
        }
        self.fleet.generation += 1;
        self.measure_anew();
        self.note(Self::settings);
    }

    pub(crate) fn settings(&self) -> String {
        let spec = self.fleet.spec.as_ref();
        format!("settings: {:?}", spec.map(|it| (it.replicas, it.spread, &it.deploy)))
    }

    pub(crate) fn clear_ghosts(&mut self) {
        self.note(|_| "ghosts are cleared".to_owned());
        self.fleet.ghosted.clear();
        self.fleet.generation += 1;
    }

    pub(crate) fn pause_or_resume(&mut self) {
        if !self.steer(Steering::Pause) {
            self.steer(Steering::Resume);
        }
    }

    /// False where it cannot be done now.
    pub(crate) fn steer(&mut self, steering: Steering) -> bool {
        let said = Said { by: "somebody".to_owned(), at: self.clock() };
        let steered = self.fleet.rollout.clone().map(|it| it.steered(steering, said));
        let Some(Ok(rollout)) = steered else { return false };
        match steering {
            Steering::Pause => self.seen.saw(Deed::Paused),
            Steering::Resume => self.seen.saw(Deed::Resumed),
            // Seen where they come to something.
            Steering::Promote { .. } | Steering::Abort => {}
        }
        self.note(|_| format!("{steering:?}"));
        self.fleet.rollout = Some(rollout);
        self.fleet.generation += 1;
        self.plans_within(200);
        true
    }

    /// Of everything.
    pub(crate) fn ask_for_a_restart(&mut self) {
        self.wishes += 1;
        self.seen.saw(Deed::Restart);
        self.fleet.generation += 1;
        let id = RestartId(uuid::Uuid::from_u128(u128::from(self.wishes)));
        let (generation, at) = (self.fleet.generation, self.clock());
        self.note(|_| format!("restart {id} is asked for"));
        let by = "somebody".to_owned();
        self.fleet.restarts.push(RestartWish {
            id,
            generation,
            node: None,
            slot: None,
            by,
            because: None,
            at,
        });
    }

    /// Something else than it was.
    pub(crate) fn change_service(&mut self, host: usize) {
        let id = self.hosts[host].id;
        let Some(node) = self.fleet.nodes.get(&id) else { return };
        let others = [Service::Open, Service::Cordoned, Service::Draining];
        let others: Vec<Service> = others.into_iter().filter(|it| *it != node.service).collect();
        if let Some(service) = self.dice.pick(&others).copied() {
            self.set_service(host, service);
        }
    }

    pub(crate) fn set_service(&mut self, host: usize, service: Service) {
        let id = self.hosts[host].id;
        let Some(node) = self.fleet.nodes.get_mut(&id) else { return };
        node.service = service;
        self.fleet.generation += 1;
        let holds = self.fleet.assigned.iter().any(|(place, it)| place.node == id && it.release.is_some());
        match service {
            Service::Open => self.seen.saw(Deed::Reopened),
            Service::Cordoned if holds => self.seen.saw(Deed::Cordoned),
            // Seen once it is empty.
            Service::Cordoned | Service::Draining => {}
        }
        self.measure_anew();
        self.note(|_| format!("host {host} is {service}"));
        self.plans_within(200);
    }

    /// For ever: it is never heard again, and what it runs is its own affair.
    pub(crate) fn remove(&mut self, host: usize) -> Checked {
        let id = self.hosts[host].id;
        if self.fleet.nodes.len() < 2 || self.fleet.nodes.remove(&id).is_none() {
            return Ok(());
        }
        self.note(|_| format!("host {host} is removed"));
        self.seen.saw(Deed::Removed);
        self.fleet.assigned.retain(|place, _| place.node != id);
        self.fleet.observed.retain(|place, _| place.node != id);
        self.fleet.generation += 1;
        self.hosts[host].cut_off_until = u64::MAX;
        self.measure_anew();
        self.cut(host)
    }

    pub(crate) fn join(&mut self) {
        if self.hosts.len() >= MOST_HOSTS {
            return;
        }
        let host = self.hosts.len();
        let (id, mut node) = simulation::node(u8::try_from(host + 1).unwrap());
        settings::label(&mut node, &mut self.dice);
        self.note(|_| format!("host {host} joins"));
        self.seen.saw(Deed::Joined);
        self.fleet.nodes.insert(id, node);
        self.fleet.generation += 1;
        self.hosts.push(Host::new(id));
        self.measure_anew();
        self.later(1, 500, Due::Connects { host });
    }
}
