//! Looks at the host: a dozen small files of the kernel, kept open, and room on one file system.
//!
//! It runs every few seconds for ever on every host, so nothing is listed that is not asked for, and which disks and
//! interfaces count is looked up once for each.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use proto::pb;
use tokio::time::Instant;

use super::figures::{self, Bytes, Ticks};
use crate::clock;

/// No file of the kernel that is read here is longer.
const MOST_BYTES: usize = 1 << 20;
/// Names of disks and interfaces that are remembered; a host with more is asked again.
const MOST_NAMES: usize = 1_024;

pub(super) struct Kernel {
    /// Whose file system's room is asked.
    var_path: PathBuf,
    files: Files,
    text: Vec<u8>,
    disks: Names,
    interfaces: Names,
    before: Counters,
}

/// What only grows, as it was at the last look.
struct Counters {
    at: Instant,
    cpus: Vec<Ticks>,
    disks: Bytes,
    network: Bytes,
}

/// Files that are read again and again. Absent: this kernel has none.
struct Files {
    stat: Option<File>,
    memory: Option<File>,
    load: Option<File>,
    disks: Option<File>,
    network: Option<File>,
    pressure: [Option<File>; 3],
}

impl Files {
    fn open() -> Self {
        let open = |path: &str| File::open(path).ok();
        Self {
            stat: open("/proc/stat"),
            memory: open("/proc/meminfo"),
            load: open("/proc/loadavg"),
            disks: open("/proc/diskstats"),
            network: open("/proc/net/dev"),
            pressure: ["cpu", "memory", "io"].map(|it| open(&format!("/proc/pressure/{it}"))),
        }
    }
}

/// Whether something of that name stands for a piece of hardware, and not for a part or a user of another.
struct Names {
    folder: &'static str,
    known: HashMap<String, bool>,
}

impl Names {
    fn below(folder: &'static str) -> Self {
        Self { folder, known: HashMap::new() }
    }

    fn is_real(&mut self, name: &str) -> bool {
        if let Some(known) = self.known.get(name) {
            return *known;
        }
        // The kernel writes `!` where a name has a `/`.
        let path = Path::new(self.folder).join(name.replace('/', "!")).join("device");
        let is_real = path.exists();
        if self.known.len() >= MOST_NAMES {
            self.known.clear();
        }
        self.known.insert(name.to_owned(), is_real);
        is_real
    }
}

impl Kernel {
    pub(super) fn open(var_path: PathBuf) -> Self {
        let before = Counters {
            at: Instant::now(),
            cpus: Vec::new(),
            disks: Bytes::default(),
            network: Bytes::default(),
        };
        let mut kernel = Self {
            var_path,
            files: Files::open(),
            text: Vec::new(),
            disks: Names::below("/sys/block"),
            interfaces: Names::below("/sys/class/net"),
            before,
        };
        kernel.before = kernel.counters();
        kernel
    }

    fn counters(&mut self) -> Counters {
        let Self { files, text, disks, interfaces, .. } = self;
        Counters {
            at: Instant::now(),
            cpus: figures::cpus(read(files.stat.as_ref(), text)),
            disks: figures::disks(read(files.disks.as_ref(), text), |name| disks.is_real(name)),
            network: figures::interfaces(read(files.network.as_ref(), text), |name| interfaces.is_real(name)),
        }
    }

    /// Rates and percentages are those since the last look.
    pub(super) fn look(&mut self) -> pb::HostSample {
        let now = self.counters();
        let before = std::mem::replace(&mut self.before, now);
        let now = &self.before;
        let seconds = now.at.duration_since(before.at).as_secs_f64();
        // A core that came or went moves all behind it: they are told anew the next time.
        let cpus: Vec<f64> = match now.cpus.len() == before.cpus.len() {
            true => now.cpus.iter().zip(&before.cpus).map(|(now, then)| now.percent_since(*then)).collect(),
            false => vec![0.0; now.cpus.len()],
        };
        let (disk_read, disk_write) = now.disks.per_second(before.disks, seconds);
        let (received, sent) = now.network.per_second(before.network, seconds);
        let memory = figures::memory(read(self.files.memory.as_ref(), &mut self.text));
        let [load1, load5, load15] = figures::load(read(self.files.load.as_ref(), &mut self.text));
        let room = room(&self.var_path);
        #[expect(clippy::cast_possible_truncation, reason = "a percentage")]
        let core_percent = cpus.iter().skip(1).map(|it| *it as f32).collect();
        pb::HostSample {
            cpu_percent: cpus.first().copied().unwrap_or(0.0),
            core_percent,
            memory_used_bytes: memory.total.saturating_sub(memory.available),
            memory_total_bytes: memory.total,
            memory_available_bytes: memory.available,
            swap_used_bytes: memory.swap_total.saturating_sub(memory.swap_free),
            swap_total_bytes: memory.swap_total,
            load1,
            load5,
            load15,
            pressure: self.pressure(),
            disk_used_bytes: room.used,
            disk_total_bytes: room.total,
            disk_available_bytes: room.available,
            disk_read_per_second: disk_read,
            disk_write_per_second: disk_write,
            network_received_per_second: received,
            network_sent_per_second: sent,
            uptime_ms: clock::now().0,
        }
    }

    fn pressure(&mut self) -> Option<pb::Pressure> {
        let [cpu, memory, io] = &self.files.pressure;
        let mut of = |file: &Option<File>| figures::pressure(read(file.as_ref(), &mut self.text));
        if cpu.is_none() && memory.is_none() && io.is_none() {
            return None;
        }
        let ((cpu_some, _), (memory_some, memory_full), (io_some, io_full)) = (of(cpu), of(memory), of(io));
        Some(pb::Pressure { cpu_some, memory_some, memory_full, io_some, io_full })
    }
}

/// From its beginning, into the same room each time. A file that says nothing now is empty.
fn read<'t>(file: Option<&File>, text: &'t mut Vec<u8>) -> &'t str {
    text.clear();
    let Some(file) = file else { return "" };
    let mut length = 0;
    loop {
        if text.len() < length + 4_096 {
            text.resize(length + 4_096, 0);
        }
        match file.read_at(&mut text[length..], length as u64) {
            Ok(0) => break,
            Ok(bytes) if length + bytes <= MOST_BYTES => length += bytes,
            Ok(_) | Err(_) => return "",
        }
    }
    std::str::from_utf8(&text[..length]).unwrap_or_default()
}

/// Of a file system, in bytes.
#[derive(Default)]
struct Room {
    used: u64,
    total: u64,
    /// To those who are not root.
    available: u64,
}

/// Nothing where it cannot be asked.
fn room(path: &Path) -> Room {
    let Ok(stat) = rustix::fs::statvfs(path) else { return Room::default() };
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Room {
        used: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
        total: bytes(stat.f_blocks),
        available: bytes(stat.f_bavail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_plausible_numbers() {
        let mut kernel = Kernel::open(std::env::temp_dir());
        for _ in 0..2 {
            let host = kernel.look();
            assert!(host.memory_total_bytes > host.memory_used_bytes && host.memory_used_bytes > 0);
            assert!(host.disk_total_bytes >= host.disk_used_bytes && host.disk_total_bytes > 0);
            assert!(host.uptime_ms > 0 && host.load15 >= 0.0);
            let cores = std::thread::available_parallelism().unwrap().get();
            assert!(host.core_percent.len() >= cores, "{} of {cores}", host.core_percent.len());
            assert!(host.core_percent.iter().all(|it| (0.0..=100.0).contains(it)));
            assert_eq!(host.pressure.is_some(), File::open("/proc/pressure/cpu").is_ok());
        }
    }

    #[test]
    fn a_file_is_read_whole_each_time_and_one_that_is_missing_says_nothing() {
        let mut text = Vec::new();
        let stat = File::open("/proc/self/maps").unwrap();
        let expected = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(read(Some(&stat), &mut text).lines().count() > 10);
        let status = File::open("/proc/self/status").unwrap();
        let first = expected.lines().next().unwrap();
        assert_eq!(read(Some(&status), &mut text).lines().next(), Some(first));
        assert_eq!(read(None, &mut text), "");
    }
}
