//! What each host's figures were during the last hour, in memory. Pure.
//!
//! One sample is 56 bytes and a byte for each core, so the hour of a host with 8 cores is 45 KiB: 220 MiB for 5,000 of them.
//! Percentages and pressure are kept to a hundredth, memory to a KiB, disks to a MiB; a chart shows no more.

use std::collections::{HashMap, VecDeque};

use proto::ids::NodeId;
use proto::metrics::{EVERY_MS, HostPoint, KEPT_MS};
use proto::nodes::Pressure;
use proto::pb;

use crate::clock::Time;

/// Of one host, also where its agent sends more often than it should.
const MOST_SAMPLES: usize = 720;
/// Room is made for so many at a time: doubling would leave half of it empty.
const GROW: usize = 60;
/// Cores of which each is kept; of a larger host the first ones.
const MOST_CORES: usize = 64;
/// Hosts of which anything is kept, so that nobody's certificates fill the memory.
const MOST_HOSTS: usize = 10_000;
/// Two samples of one host are at least so far apart; an agent that sends faster has a fault.
const LEAST_APART: u64 = EVERY_MS / 2;

/// Every host's last hour.
#[derive(Default)]
pub(super) struct Histories {
    hosts: HashMap<NodeId, History>,
}

#[derive(Default)]
struct History {
    samples: VecDeque<Sample>,
    /// `width` bytes for each sample, oldest first.
    cores: VecDeque<u8>,
    width: usize,
}

/// Percentages in hundredths.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    at: Time,
    memory_kib: u32,
    swap_kib: u32,
    disk_mib: u32,
    load: f32,
    disk_read: f32,
    disk_write: f32,
    network_received: f32,
    network_sent: f32,
    cpu: u16,
    pressure: Option<[u16; 5]>,
}

impl Histories {
    pub(super) fn add(&mut self, node: NodeId, sample: &pb::HostSample, now: Time) {
        if self.hosts.len() >= MOST_HOSTS && !self.hosts.contains_key(&node) {
            return;
        }
        self.hosts.entry(node).or_default().add(sample, now);
    }

    /// Oldest first, by our own clock; only what came after `since`.
    pub(super) fn of(&self, node: NodeId, since: Option<Time>, now: Time) -> Vec<(Time, HostPoint)> {
        self.hosts.get(&node).map(|it| it.points(since, now)).unwrap_or_default()
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.hosts.remove(&node);
    }
}

impl History {
    fn add(&mut self, sample: &pb::HostSample, now: Time) {
        if self.samples.back().is_some_and(|last| now.since(last.at) < LEAST_APART) {
            return;
        }
        let width = sample.core_percent.len().min(MOST_CORES);
        if width != self.width {
            // Cores came or went: what each did before would be another one's.
            self.cores.clear();
            self.cores.shrink_to_fit();
            self.width = width;
            self.cores.extend(std::iter::repeat_n(0, width * self.samples.len()));
        }
        while self.samples.len() >= MOST_SAMPLES
            || self.samples.front().is_some_and(|first| now.since(first.at) > KEPT_MS)
        {
            self.samples.pop_front();
            self.cores.drain(..self.width.min(self.cores.len()));
        }
        if self.samples.len() == self.samples.capacity() {
            self.samples.reserve_exact(GROW);
            self.cores.reserve_exact(GROW * self.width);
        }
        self.samples.push_back(Sample::read(sample, now));
        self.cores.extend(sample.core_percent.iter().take(width).map(|it| whole(*it)));
    }

    fn points(&self, since: Option<Time>, now: Time) -> Vec<(Time, HostPoint)> {
        let is_asked = |at: Time| now.since(at) <= KEPT_MS && since.is_none_or(|since| at > since);
        let point = |(index, sample): (usize, &Sample)| {
            let cores = self.cores.range(index * self.width..(index + 1) * self.width).copied().collect();
            (sample.at, HostPoint { cores, ..sample.point() })
        };
        let asked = self.samples.iter().enumerate().filter(|(_, sample)| is_asked(sample.at));
        asked.map(point).collect()
    }
}

impl Sample {
    #[expect(clippy::cast_possible_truncation, reason = "rates are shown with three digits")]
    fn read(sample: &pb::HostSample, at: Time) -> Self {
        let pb::HostSample { memory_used_bytes, swap_used_bytes, disk_used_bytes, .. } = *sample;
        let pressure = sample.pressure.map(|it| {
            [it.cpu_some, it.memory_some, it.memory_full, it.io_some, it.io_full]
                .map(|it| hundredths(it.into()))
        });
        Self {
            at,
            memory_kib: up_to_u32(memory_used_bytes >> 10),
            swap_kib: up_to_u32(swap_used_bytes >> 10),
            disk_mib: up_to_u32(disk_used_bytes >> 20),
            load: sample.load1 as f32,
            disk_read: sample.disk_read_per_second as f32,
            disk_write: sample.disk_write_per_second as f32,
            network_received: sample.network_received_per_second as f32,
            network_sent: sample.network_sent_per_second as f32,
            cpu: hundredths(sample.cpu_percent),
            pressure,
        }
    }

    /// But for its time and its cores.
    fn point(&self) -> HostPoint {
        let percent = |hundredths: u16| f32::from(hundredths) / 100.0;
        let pressure = self.pressure.map(|it| it.map(percent));
        HostPoint {
            cpu: percent(self.cpu),
            memory_used: u64::from(self.memory_kib) << 10,
            swap_used: u64::from(self.swap_kib) << 10,
            load: (self.load * 100.0).round() / 100.0,
            pressure: pressure.map(|[cpu_some, memory_some, memory_full, io_some, io_full]| Pressure {
                cpu_some,
                memory_some,
                memory_full,
                io_some,
                io_full,
            }),
            disk_used: u64::from(self.disk_mib) << 20,
            disk_read: self.disk_read.round(),
            disk_write: self.disk_write.round(),
            network_received: self.network_received.round(),
            network_sent: self.network_sent.round(),
            ..HostPoint::default()
        }
    }
}

fn up_to_u32(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Of 0..=100; what is no number is 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
fn hundredths(percent: f64) -> u16 {
    (percent.clamp(0.0, 100.0) * 100.0).round() as u16
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
fn whole(percent: f32) -> u8 {
    percent.clamp(0.0, 100.0).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cpu: f64, cores: usize) -> pb::HostSample {
        pb::HostSample {
            cpu_percent: cpu,
            core_percent: vec![12.6; cores],
            memory_used_bytes: 3 << 30,
            disk_used_bytes: 40 << 30,
            load1: 0.123_456,
            network_sent_per_second: 1_000.4,
            pressure: Some(pb::Pressure { io_full: 7.891, ..Default::default() }),
            ..Default::default()
        }
    }

    fn node() -> NodeId {
        NodeId(uuid::Uuid::nil())
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let mut all = Histories::default();
        for n in 0..2_000 {
            all.add(node(), &sample(10.0, 4), Time(n * EVERY_MS));
        }
        let now = Time(1_999 * EVERY_MS);
        let points = all.of(node(), None, now);
        assert_eq!(points.len(), MOST_SAMPLES);
        assert_eq!(points[719].0, now);
        assert!(all.of(node(), None, now.plus(KEPT_MS + 1)).is_empty(), "what is older is not shown");
        let history = &all.hosts[&node()];
        assert_eq!(history.cores.len(), 4 * MOST_SAMPLES);
        assert!(history.samples.capacity() <= MOST_SAMPLES + GROW, "{}", history.samples.capacity());
    }

    #[test]
    fn a_point_is_what_was_sampled_as_far_as_a_chart_shows() {
        let mut all = Histories::default();
        all.add(node(), &sample(33.337, 2), Time(5_000));
        let (at, point) = all.of(node(), None, Time(6_000)).remove(0);
        let pressure = Some(Pressure { io_full: 7.89, ..Pressure::default() });
        let expected = HostPoint {
            cpu: 33.34,
            cores: vec![13, 13],
            memory_used: 3 << 30,
            disk_used: 40 << 30,
            load: 0.12,
            network_sent: 1_000.0,
            pressure,
            ..HostPoint::default()
        };
        assert_eq!((at, point), (Time(5_000), expected));
    }

    #[test]
    fn only_what_came_since_is_told() {
        let mut all = Histories::default();
        for n in 0..10 {
            all.add(node(), &sample(1.0, 0), Time(n * EVERY_MS));
        }
        let told = all.of(node(), Some(Time(7 * EVERY_MS)), Time(10 * EVERY_MS));
        assert_eq!(told.iter().map(|it| it.0.0 / EVERY_MS).collect::<Vec<_>>(), [8, 9]);
        all.forget(node());
        assert!(all.of(node(), None, Time(10 * EVERY_MS)).is_empty());
    }

    #[test]
    fn cores_that_come_and_go_leave_nothing_out_of_step() {
        let mut all = Histories::default();
        for (n, cores) in [2, 2, 4, 0, 3, 200].into_iter().enumerate() {
            all.add(node(), &sample(1.0, cores), Time(n as u64 * EVERY_MS));
            let points = all.of(node(), None, Time(n as u64 * EVERY_MS));
            assert!(points.iter().all(|(_, it)| it.cores.len() == cores.min(MOST_CORES)));
        }
    }

    #[test]
    fn nonsense_and_haste_of_an_agent_cost_nothing() {
        let mut all = Histories::default();
        let odd = pb::HostSample { cpu_percent: f64::NAN, memory_used_bytes: u64::MAX, ..sample(0.0, 1) };
        all.add(node(), &odd, Time(0));
        for n in 1..1_000 {
            all.add(node(), &odd, Time(n));
        }
        let points = all.of(node(), None, Time(1_000));
        assert_eq!(points.len(), 1);
        assert!(points[0].1.cpu.abs() < f32::EPSILON);
    }

    #[test]
    fn five_thousand_hosts_fit_into_a_fifth_of_a_gigabyte() {
        assert!(size_of::<Sample>() <= 56, "{}", size_of::<Sample>());
        let hour = MOST_SAMPLES * (size_of::<Sample>() + 8);
        assert!(5_000 * hour <= 240 << 20, "{}", 5_000 * hour);
    }
}
