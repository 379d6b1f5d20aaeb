//! What the figures of each replica's VM were during the last hour, in memory. Pure.
//!
//! A sample is 80 bytes, so the hour of a replica is 141 KiB where every sample is kept. All of them together never take more
//! than [`BUDGET`]: of a large fleet samples are kept further apart, 16 s at 15,000 replicas, which a chart of an hour does
//! not show. The newest is always there.

use std::collections::{HashMap, VecDeque};

use proto::ids::{AppName, NodeId};
use proto::metrics::{KEPT_MS, VM_EVERY_MS, VmPoint};
use proto::pb;

use crate::clock::Time;
use crate::fleet::Place;

/// For the samples of all replicas, in bytes.
const BUDGET: usize = 256 << 20;
/// Of one replica: one every two seconds.
const MOST_SAMPLES: usize = 1_800;
/// With fewer an hour is no line any more.
const FEWEST_SAMPLES: usize = 60;
/// Replicas of which anything is kept.
const MOST_REPLICAS: usize = BUDGET / size_of::<Sample>() / FEWEST_SAMPLES;
/// Room is made for so many at a time: doubling would leave half of it empty.
const GROW: usize = 60;
/// A sample that is older than this is not how it is now.
const LATELY_MS: u64 = 15_000;
/// So often what is old is looked for and dropped.
const SWEEP_MS: u64 = 60_000;

/// Every replica's last hour.
#[derive(Default)]
pub(super) struct VmHistories {
    replicas: HashMap<(AppName, Place), Ring>,
    swept: Time,
}

/// What was sampled of one replica.
#[derive(Clone, Debug, PartialEq)]
pub struct VmPast {
    /// How far apart two samples are that are kept.
    pub every_ms: u64,
    /// Oldest first, by our own clock.
    pub points: Vec<(Time, VmPoint)>,
}

#[derive(Default)]
struct Ring {
    samples: VecDeque<Sample>,
    newest: Option<Sample>,
}

/// Sizes in KiB, percentages in hundredths.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    at: Time,
    memory: [u32; 6],
    counts: [u32; 6],
    rates: [f32; 5],
    schedulers: Option<u16>,
}

impl VmHistories {
    /// `now`: when the heartbeat that carried it was heard.
    pub(super) fn add(&mut self, (app, place): (&AppName, Place), sample: &pb::VmSample, now: Time) {
        self.sweep(now);
        let key = (app.clone(), place);
        if self.replicas.len() >= MOST_REPLICAS && !self.replicas.contains_key(&key) {
            return;
        }
        // Whether it is a new one makes no difference worth another look.
        let room = room(self.replicas.len());
        let sample = Sample::read(sample, Time(now.0.saturating_sub(sample.age_ms.into())));
        self.replicas.entry(key).or_default().add(sample, room);
    }

    /// Only what came after `since`.
    pub(super) fn of(&self, (app, place): (&AppName, Place), since: Option<Time>, now: Time) -> VmPast {
        let is_asked = |at: Time| now.since(at) <= KEPT_MS && since.is_none_or(|since| at > since);
        let ring = self.replicas.get(&(app.clone(), place));
        let samples = ring.into_iter().flat_map(|it| &it.samples).filter(|it| is_asked(it.at));
        let points = samples.map(|it| (it.at, it.point())).collect();
        VmPast { every_ms: apart(room(self.replicas.len())), points }
    }

    pub(super) fn newest(&self, (app, place): (&AppName, Place), now: Time) -> Option<(Time, VmPoint)> {
        let newest = self.replicas.get(&(app.clone(), place))?.newest.as_ref()?;
        (now.since(newest.at) <= LATELY_MS).then(|| (newest.at, newest.point()))
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.replicas.retain(|(_, place), _| place.node != node);
    }

    fn sweep(&mut self, now: Time) {
        if now.since(self.swept) >= SWEEP_MS {
            self.swept = now;
            let is_old = |ring: &Ring| ring.newest.as_ref().is_none_or(|it| now.since(it.at) > KEPT_MS);
            self.replicas.retain(|_, ring| !is_old(ring));
        }
    }
}

/// Samples of each of so many replicas.
fn room(replicas: usize) -> usize {
    (BUDGET / size_of::<Sample>() / replicas.max(1)).clamp(FEWEST_SAMPLES, MOST_SAMPLES)
}

/// Two samples are so far apart where there is room for that many an hour.
fn apart(room: usize) -> u64 {
    KEPT_MS / u64::try_from(room).unwrap_or(1).max(1)
}

impl Ring {
    fn add(&mut self, sample: Sample, room: usize) {
        if self.newest.as_ref().is_some_and(|newest| sample.at <= newest.at) {
            return;
        }
        self.newest = Some(sample);
        // A sample that comes a little early is one; an agent that sends twice as fast has a fault.
        let least = apart(room).saturating_sub(VM_EVERY_MS / 2);
        if self.samples.back().is_some_and(|last| sample.at.since(last.at) < least) {
            return;
        }
        while self.samples.len() >= room
            || self.samples.front().is_some_and(|first| sample.at.since(first.at) > KEPT_MS)
        {
            self.samples.pop_front();
        }
        if self.samples.capacity() > room + GROW {
            self.samples.shrink_to(room);
        }
        if self.samples.len() == self.samples.capacity() {
            self.samples.reserve_exact(GROW);
        }
        self.samples.push_back(sample);
    }
}

impl Sample {
    #[expect(clippy::cast_possible_truncation, reason = "rates are shown with three digits")]
    fn read(sample: &pb::VmSample, at: Time) -> Self {
        let kib = |bytes: u64| up_to_u32(bytes >> 10);
        Self {
            at,
            memory: [
                kib(sample.memory_total),
                kib(sample.memory_processes),
                kib(sample.memory_atom),
                kib(sample.memory_binary),
                kib(sample.memory_code),
                kib(sample.memory_ets),
            ],
            counts: [
                up_to_u32(sample.processes),
                up_to_u32(sample.ports),
                up_to_u32(sample.atoms),
                up_to_u32(sample.ets_tables),
                up_to_u32(sample.run_queue),
                up_to_u32(sample.longest_run_queue),
            ],
            rates: [
                sample.reductions_per_second as f32,
                sample.collections_per_second as f32,
                sample.reclaimed_per_second as f32,
                sample.input_per_second as f32,
                sample.output_per_second as f32,
            ]
            .map(|it| if it.is_finite() { it.max(0.0) } else { 0.0 }),
            schedulers: sample.scheduler_percent.map(hundredths),
        }
    }

    /// But for its time.
    fn point(&self) -> VmPoint {
        let [memory, memory_processes, memory_atom, memory_binary, memory_code, memory_ets] =
            self.memory.map(|kib| u64::from(kib) << 10);
        let [processes, ports, atoms, ets_tables, run_queue, longest_run_queue] = self.counts;
        let [reductions, collections, reclaimed, input, output] =
            self.rates.map(|it| (it * 100.0).round() / 100.0);
        VmPoint {
            memory,
            memory_processes,
            memory_atom,
            memory_binary,
            memory_code,
            memory_ets,
            processes,
            ports,
            atoms,
            ets_tables,
            run_queue,
            longest_run_queue,
            schedulers: self.schedulers.map(|it| f32::from(it) / 100.0),
            reductions,
            collections,
            reclaimed,
            input,
            output,
            ..VmPoint::default()
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

#[cfg(test)]
mod tests {
    use proto::ids::Slot;

    use super::*;

    fn app() -> AppName {
        "shop".parse().unwrap()
    }

    fn place(node: u128) -> Place {
        Place { node: NodeId(uuid::Uuid::from_u128(node)), slot: Slot::new(1).unwrap() }
    }

    fn sample(age_ms: u32) -> pb::VmSample {
        pb::VmSample {
            age_ms,
            memory_total: 90 << 20,
            memory_ets: 1_500,
            processes: 100_038,
            atoms: 9_600,
            run_queue: 7,
            longest_run_queue: 5,
            scheduler_percent: Some(12.345),
            reductions_per_second: 1_000.126,
            input_per_second: f64::NAN,
            ..Default::default()
        }
    }

    #[test]
    fn an_hour_of_every_sample_is_kept_and_no_more() {
        let mut all = VmHistories::default();
        for n in 0..5_000 {
            all.add((&app(), place(1)), &sample(0), Time(n * VM_EVERY_MS));
        }
        let now = Time(4_999 * VM_EVERY_MS);
        let past = all.of((&app(), place(1)), None, now);
        assert_eq!((past.points.len(), past.every_ms, past.points[1_799].0), (MOST_SAMPLES, 2_000, now));
        assert!(all.of((&app(), place(1)), None, now.plus(KEPT_MS + 1)).points.is_empty());
        let since = Time(4_990 * VM_EVERY_MS);
        assert_eq!(all.of((&app(), place(1)), Some(since), now).points.len(), 9);
        let ring = &all.replicas[&(app(), place(1))];
        assert!(ring.samples.capacity() <= MOST_SAMPLES + GROW, "{}", ring.samples.capacity());
    }

    #[test]
    fn a_point_is_what_was_sampled_and_is_dated_by_its_age() {
        let mut all = VmHistories::default();
        all.add((&app(), place(1)), &sample(1_200), Time(10_000));
        let expected = VmPoint {
            memory: 90 << 20,
            memory_ets: 1_024,
            processes: 100_038,
            atoms: 9_600,
            run_queue: 7,
            longest_run_queue: 5,
            schedulers: Some(12.35),
            reductions: 1_000.13,
            ..VmPoint::default()
        };
        let point = all.newest((&app(), place(1)), Time(10_000)).unwrap();
        assert_eq!(point, (Time(8_800), expected));
        assert_eq!(all.of((&app(), place(1)), None, Time(10_000)).points, [point]);
        assert_eq!(all.newest((&app(), place(1)), Time(8_801 + LATELY_MS)), None, "that is not now");
    }

    #[test]
    fn what_comes_twice_or_too_fast_is_kept_once() {
        let mut all = VmHistories::default();
        for n in 0..100 {
            all.add((&app(), place(1)), &sample(0), Time(1_000 + n));
            all.add((&app(), place(1)), &sample(50), Time(1_000 + n));
        }
        assert_eq!(all.of((&app(), place(1)), None, Time(2_000)).points.len(), 1);
        assert_eq!(all.newest((&app(), place(1)), Time(2_000)).unwrap().0, Time(1_099));
    }

    #[test]
    fn many_replicas_share_the_room_and_the_newest_is_there_all_the_same() {
        assert!(size_of::<Sample>() <= 80, "{}", size_of::<Sample>());
        for replicas in [1, 1_000, 15_000, MOST_REPLICAS] {
            assert!(replicas * room(replicas) * size_of::<Sample>() <= BUDGET, "{replicas}");
        }
        assert_eq!(apart(room(15_000)) / 1_000, 16);
        let mut ring = Ring::default();
        for n in 0..2_000 {
            ring.add(Sample::read(&sample(0), Time(n * VM_EVERY_MS)), MOST_SAMPLES);
        }
        // The fleet has grown.
        for n in 2_000..2_100 {
            ring.add(Sample::read(&sample(0), Time(n * VM_EVERY_MS)), 100);
        }
        assert!(ring.samples.len() <= 100 && ring.samples.capacity() <= 100 + 2 * GROW);
        assert_eq!(ring.newest.unwrap().at, Time(2_099 * VM_EVERY_MS));
    }

    #[test]
    fn what_is_gone_for_an_hour_or_whose_node_was_removed_takes_no_room() {
        let mut all = VmHistories::default();
        all.add((&app(), place(1)), &sample(0), Time(1_000));
        all.add((&app(), place(2)), &sample(0), Time(KEPT_MS));
        all.add((&app(), place(2)), &sample(0), Time(KEPT_MS + 2 * SWEEP_MS));
        assert_eq!(all.replicas.len(), 1);
        all.forget(place(2).node);
        assert!(all.replicas.is_empty());
    }
}
