//! What the figures were taken on, in one line: without it they say nothing.

use std::fs;
use std::path::Path;

/// Cores, memory, kernel, and the file system that `folder` lies on.
pub(super) fn describe(folder: &Path) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let text = |path| fs::read_to_string(path).unwrap_or_default();
    let cpu = model(&text("/proc/cpuinfo")).unwrap_or_else(|| "unknown CPU".to_owned());
    let kernel = text("/proc/sys/kernel/osrelease");
    let load = text("/proc/loadavg");
    let disk = file_system(&text("/proc/self/mountinfo"), folder).unwrap_or_else(|| "unknown".to_owned());
    format!(
        "{cores} cores ({cpu}), Linux {}, {} on {disk}, load {}",
        kernel.trim(),
        folder.display(),
        load.split_whitespace().next().unwrap_or("unknown")
    )
}

fn model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Type and device of the deepest mount above `folder`.
fn file_system(mountinfo: &str, folder: &Path) -> Option<String> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (mount, device) = line.split_once(" - ")?;
        let point = Path::new(mount.split(' ').nth(4)?);
        let mut device = device.split(' ');
        folder.starts_with(point).then(|| (point.components().count(), device.next(), device.next()))
    });
    // Of two mounts on one point the later hides the earlier.
    let (_, kind, device) = mounts.max_by_key(|(depth, ..)| *depth)?;
    Some(format!("{} {}", kind?, device?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_is_the_one_that_counts() {
        let mounts = "22 1 254:0 / / rw - ext4 /dev/vda rw\n23 22 0:5 / /tmp rw,x - tmpfs tmpfs rw\n\
            24 22 0:6 / /tmpfoo rw - xfs /dev/b rw\n";
        assert_eq!(file_system(mounts, Path::new("/tmp/a")).unwrap(), "tmpfs tmpfs");
        assert_eq!(file_system(mounts, Path::new("/var")).unwrap(), "ext4 /dev/vda");
        assert_eq!(file_system("", Path::new("/var")), None);
    }

    #[test]
    fn a_machine_is_described() {
        let line = describe(Path::new("/"));
        assert!(line.contains("cores (") && line.contains("Linux "), "{line}");
        assert_eq!(model("processor : 0\nmodel name\t: A CPU @ 2\n").unwrap(), "A CPU @ 2");
    }
}
