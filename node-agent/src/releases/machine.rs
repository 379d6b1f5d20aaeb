//! For which machine a release was built: read off the head of its emulator, so that one of another machine is refused by
//! name before anything is stopped for it, instead of by a shell's "not found" or "Exec format error" after.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::StageError;
use super::manifest::Item;
use super::store::Wanted;

/// Up to the machine, in the layouts of both widths.
const HEAD: usize = 20;

/// `files`: the unpacked release. A release without an emulator of its own runs on the host's.
pub(super) fn check(wanted: &Wanted, items: &[Item], files: &Path) -> Result<(), StageError> {
    let Some(emulator) = items.iter().map(Item::path).find(|path| is_emulator(path)) else { return Ok(()) };
    let path = files.join(emulator);
    let (release, host) = (head(&path), head(Path::new("/proc/self/exe")));
    let release = match release {
        Ok(head) => head,
        // What is lost or changed is found out when it is laid.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StageError::io("read", &path)(error)),
    };
    let host = host.map_err(StageError::io("read", Path::new("/proc/self/exe")))?;
    match built_for(&release) {
        Some(built_for) if !runs(built_for, &host) => Err(StageError::Machine {
            version: wanted.key.version.clone(),
            built_for,
            host: self::built_for(&host).unwrap_or("another machine"),
        }),
        _ => Ok(()),
    }
}

fn is_emulator(path: &str) -> bool {
    let mut parts = path.split('/');
    let (top, bin, file, end) = (parts.next(), parts.next(), parts.next(), parts.next());
    top.is_some_and(|it| it.starts_with("erts-"))
        && (bin, end) == (Some("bin"), None)
        && matches!(file, Some("beam.smp" | "beam"))
}

fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    File::open(path)?.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// `None`: a script, or something of which nothing is known.
fn built_for(head: &[u8]) -> Option<&'static str> {
    match head {
        [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] | [0xca, 0xfe, 0xba, 0xbe, ..] => Some("macOS"),
        [b'M', b'Z', ..] => Some("Windows"),
        [0x7f, b'E', b'L', b'F', width, order, ..] if head.len() == HEAD => {
            let machine = [head[18], head[19]];
            let machine = if *order == 2 { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) };
            match (machine, width) {
                (0x03, _) => Some("x86"),
                (0x3e, _) => Some("x86_64"),
                (0x28, _) => Some("arm"),
                (0xb7, _) => Some("aarch64"),
                (0xf3, 2) => Some("riscv64"),
                (0x15, _) if *order == 2 => Some("powerpc64"),
                (0x15, _) => Some("powerpc64le"),
                (0x16, _) => Some("s390x"),
                (0x102, _) => Some("loongarch64"),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Also what many machines run beside their own, and what somebody has set up an emulation for: a refusal is for good, so it
/// must be certain.
fn runs(release: &str, host: &[u8]) -> bool {
    let host = built_for(host);
    host.is_none_or(|host| {
        host == release
            || matches!((release, host), ("x86", "x86_64") | ("arm", "aarch64"))
            || is_emulated(release)
    })
}

fn is_emulated(machine: &str) -> bool {
    let names = [
        format!("qemu-{machine}"),
        machine.replace("powerpc64", "qemu-ppc64"),
        machine.replace("macOS", "Mach-O"),
    ];
    names.iter().any(|name| Path::new("/proc/sys/fs/binfmt_misc").join(name).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(machine: u16, order: u8) -> Vec<u8> {
        let machine = if order == 2 { machine.to_be_bytes() } else { machine.to_le_bytes() };
        let mut head = vec![0x7f, b'E', b'L', b'F', 2, order, 1];
        head.resize(18, 0);
        head.extend(machine);
        head
    }

    #[test]
    fn a_machine_is_read_in_the_order_of_its_bytes() {
        assert_eq!(built_for(&elf(0xb7, 1)), Some("aarch64"));
        assert_eq!(built_for(&elf(0x16, 2)), Some("s390x"));
        assert_eq!(built_for(&elf(0x15, 2)), Some("powerpc64"));
        assert_eq!(built_for(&[0xcf, 0xfa, 0xed, 0xfe, 7, 0]), Some("macOS"));
        for unknown in [&b"#!/bin/sh\nexec beam\n"[..], b"", b"\x7fELF", &elf(0x7777, 1)] {
            assert_eq!(built_for(unknown), None);
        }
    }

    #[test]
    fn only_what_certainly_does_not_run_is_refused() {
        let host = elf(0x3e, 1);
        assert!(runs("x86_64", &host) && runs("x86", &host));
        assert!(!runs("s390x", &host) && !runs("Windows", &host));
        assert!(runs("s390x", b"something else"));
    }

    #[test]
    fn the_emulator_is_found_and_nothing_else_is_taken_for_it() {
        assert!(is_emulator("erts-13.1.5/bin/beam.smp"));
        for other in ["erts-13/bin/epmd", "lib/erts-13/bin/beam.smp", "erts-13/bin/x/beam.smp", "beam.smp"] {
            assert!(!is_emulator(other), "{other}");
        }
    }
}
