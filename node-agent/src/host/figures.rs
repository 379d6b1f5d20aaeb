//! What the kernel's files say of a host. Pure: texts in, numbers out; what is not there is nothing.

/// Of a counter of disks.
const SECTOR: u64 = 512;

/// Ticks since the host booted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ticks {
    pub(super) busy: u64,
    pub(super) all: u64,
}

impl Ticks {
    /// 0..=100 of the time since then.
    #[expect(clippy::cast_precision_loss, reason = "ticks of some seconds")]
    pub(super) fn percent_since(self, before: Self) -> f64 {
        let (busy, all) = (self.busy.saturating_sub(before.busy), self.all.saturating_sub(before.all));
        // The kernel corrects the time that it waited for disks downwards now and then.
        if all == 0 { 0.0 } else { (100.0 * busy as f64 / all as f64).min(100.0) }
    }
}

/// Of `/proc/stat`: all cores together, then each that is on.
pub(super) fn cpus(stat: &str) -> Vec<Ticks> {
    stat.lines().map_while(|line| line.strip_prefix("cpu")).map(ticks).collect()
}

fn ticks(line: &str) -> Ticks {
    let mut fields = line.split_ascii_whitespace();
    if !line.starts_with(' ') {
        fields.next(); // its number
    }
    // user nice system idle iowait irq softirq steal; guests are among the users already.
    let all: Vec<u64> = fields.take(8).filter_map(|it| it.parse().ok()).collect();
    let sum: u64 = all.iter().sum();
    let idle: u64 = all.iter().skip(3).take(2).sum();
    Ticks { busy: sum - idle, all: sum }
}

/// In bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) total: u64,
    /// To a program that asks for it, without swapping.
    pub(super) available: u64,
    pub(super) swap_total: u64,
    pub(super) swap_free: u64,
}

/// Of `/proc/meminfo`.
pub(super) fn memory(meminfo: &str) -> Memory {
    let mut memory = Memory::default();
    for line in meminfo.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let figure = match key {
            "MemTotal" => &mut memory.total,
            "MemAvailable" => &mut memory.available,
            "SwapTotal" => &mut memory.swap_total,
            "SwapFree" => &mut memory.swap_free,
            _ => continue,
        };
        let kib = value.split_ascii_whitespace().next().and_then(|it| it.parse::<u64>().ok());
        *figure = kib.unwrap_or(0).saturating_mul(1_024);
    }
    memory
}

/// Of `/proc/loadavg`: over 1, 5 and 15 minutes.
pub(super) fn load(loadavg: &str) -> [f64; 3] {
    let mut fields = loadavg.split_ascii_whitespace().map(|it| it.parse().unwrap_or(0.0));
    std::array::from_fn(|_| fields.next().unwrap_or(0.0))
}

/// Of a file of `/proc/pressure`: the share of the last ten seconds in which some waited, and in which all did.
pub(super) fn pressure(text: &str) -> (f32, f32) {
    let average = |who: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(who))?;
        line.split_ascii_whitespace().find_map(|it| it.strip_prefix("avg10="))?.parse().ok()
    };
    (average("some ").unwrap_or(0.0), average("full ").unwrap_or(0.0))
}

/// Bytes in and out since the host booted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bytes {
    pub(super) read: u64,
    pub(super) written: u64,
}

impl Bytes {
    fn plus(self, other: Self) -> Self {
        Self {
            read: self.read.saturating_add(other.read),
            written: self.written.saturating_add(other.written),
        }
    }

    /// Per second; a counter that began anew has not moved.
    #[expect(clippy::cast_precision_loss, reason = "a rate for a chart")]
    pub(super) fn per_second(self, before: Self, seconds: f64) -> (f64, f64) {
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds.max(0.001);
        (rate(self.read, before.read), rate(self.written, before.written))
    }
}

/// Of `/proc/diskstats`: what the disks that count have read and written.
pub(super) fn disks(diskstats: &str, mut counts: impl FnMut(&str) -> bool) -> Bytes {
    let disk = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(2);
        let name = fields.next()?;
        let read = fields.nth(2)?.parse::<u64>().ok()?;
        let written = fields.nth(3)?.parse::<u64>().ok()?;
        counts(name)
            .then(|| Bytes { read: read.saturating_mul(SECTOR), written: written.saturating_mul(SECTOR) })
    };
    diskstats.lines().filter_map(disk).fold(Bytes::default(), Bytes::plus)
}

/// Of `/proc/net/dev`: what real interfaces have received and sent; where there is none, all but the loopback.
pub(super) fn interfaces(dev: &str, mut is_real: impl FnMut(&str) -> bool) -> Bytes {
    let (mut real, mut others, mut any_real) = (Bytes::default(), Bytes::default(), false);
    for line in dev.lines() {
        let Some((name, counters)) = line.split_once(':') else { continue };
        let mut counters = counters.split_ascii_whitespace().map(|it| it.parse::<u64>().unwrap_or(0));
        let (Some(read), Some(written)) = (counters.next(), counters.nth(7)) else { continue };
        let (name, bytes) = (name.trim(), Bytes { read, written });
        if is_real(name) {
            any_real = true;
            real = real.plus(bytes);
        } else if name != "lo" {
            others = others.plus(bytes);
        }
    }
    if any_real { real } else { others }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_all_that_is_neither_idle_nor_waiting_for_disks() {
        let before = cpus(
            "cpu  100 0 50 800 50 0 0 0 7 0\ncpu0 100 0 50 300 50 0 0 0 7 0\ncpu1 0 0 0 500 0 0 0 0 0 0\nintr 5 1\n",
        );
        let after = cpus(
            "cpu  150 0 50 850 50 0 0 0 9 0\ncpu0 150 0 50 300 50 0 0 0 9 0\ncpu1 0 0 0 550 0 0 0 0 0 0\n",
        );
        let percent: Vec<f64> =
            after.iter().zip(&before).map(|(now, then)| now.percent_since(*then)).collect();
        assert_eq!(percent, [50.0, 100.0, 0.0]);
        assert_eq!(before[0], Ticks { busy: 150, all: 1_000 });
    }

    #[test]
    fn time_that_went_back_is_no_time() {
        let (now, before) = (Ticks { busy: 9, all: 10 }, Ticks { busy: 3, all: 12 });
        assert!(now.percent_since(before).abs() < f64::EPSILON);
    }

    #[test]
    fn memory_is_in_bytes_and_what_is_not_said_is_nothing() {
        let meminfo =
            "MemTotal:       16384 kB\nMemFree:  1 kB\nMemAvailable:    4096 kB\nSwapTotal:  0 kB\n";
        let expected = Memory { total: 16 << 20, available: 4 << 20, swap_total: 0, swap_free: 0 };
        assert_eq!(memory(meminfo), expected);
        assert_eq!(memory("nonsense"), Memory::default());
    }

    #[test]
    fn load_and_pressure_are_read() {
        assert_eq!(load("0.52 0.58 1.00 2/345 6789\n").to_vec(), vec![0.52, 0.58, 1.0]);
        assert_eq!(load("").to_vec(), vec![0.0; 3]);
        let both = "some avg10=1.25 avg60=0.00 avg300=0.00 total=5\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=1\n";
        assert_eq!(pressure(both), (1.25, 0.5));
        assert_eq!(pressure("some avg10=3.00 avg60=0.00 avg300=0.00 total=5\n"), (3.0, 0.0));
    }

    #[test]
    fn a_partition_is_not_counted_beside_its_disk() {
        let stats = "   8       0 sda 10 0 2000 1 20 0 4000 1 0 0 0\n   8       1 sda1 10 0 2000 1 20 0 4000 1 0 0 0\n   7       0 loop0 1 0 8 0 0 0 0 0\nodd\n";
        let sum = disks(stats, |name| name == "sda");
        assert_eq!(sum, Bytes { read: 2_000 * 512, written: 4_000 * 512 });
        let rates = sum.per_second(Bytes { read: 1_000 * 512, written: 4_500 * 512 }, 5.0);
        assert_eq!(rates, (102_400.0, 0.0));
    }

    #[test]
    fn a_bridge_is_not_counted_beside_the_interface_that_it_uses() {
        let dev = "Inter-|   Receive |  Transmit\n face |bytes packets|bytes\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n  eth0: 100 1 0 0 0 0 0 0 50 1 0 0 0 0 0 0\n  br0:30 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0\n";
        assert_eq!(interfaces(dev, |name| name == "eth0"), Bytes { read: 100, written: 50 });
        assert_eq!(interfaces(dev, |_| false), Bytes { read: 130, written: 70 });
    }
}
