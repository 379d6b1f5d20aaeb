//! The outage of a host, as its agent finds it afterwards. No machine is restarted for it: whoever worked there is gone at once and
//! left no word, and all that was written down names an earlier boot of the kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::ids::Digest;
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest as _, Sha256};
use xtask::processes;

use crate::programs::Agent;
use crate::replicas::OnHost;

/// Some boot that is not the present one.
const EARLIER_BOOT: &str = "01234567-89ab-4cde-8f01-23456789abcd";
/// Files that name a boot are short.
const MOST: u64 = 1 << 20;

/// Agent, keepers, virtual machines and name server of its host are gone. [`Agent::resume`] is what the next boot starts.
pub fn cut_power(agent: &mut Agent) {
    agent.kill();
    // Before those that they look after, whose end none of them writes down.
    for keeper in OnHost::of(agent.folder(), None).keepers.into_values().flatten() {
        let pid = i32::try_from(keeper).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, Signal::KILL).expect("it waits for a machine that runs");
    }
    processes::end_all_under(agent.folder(), Duration::ZERO);
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("Linux says which boot this is");
    let mut named = 0;
    for file in files(&agent.var_path()) {
        // What is no text names no boot.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        if text.contains(boot.trim()) {
            named += 1;
            let text = whole(text.replace(boot.trim(), EARLIER_BOOT));
            fs::write(&file, text).expect("the folder is ours");
        }
    }
    assert!(named > 0, "an agent that writes nothing down of its host's boot takes no outage into account");
}

/// A ledger says in its first line what the rest adds up to.
fn whole(text: String) -> String {
    let Some((line, payload)) = text.split_once('\n') else { return text };
    let words: Vec<&str> = line.split(' ').collect();
    let ["deployex-ledger", form, _, writer] = words[..] else { return text };
    let sum = Digest(Sha256::digest(payload).into());
    format!("deployex-ledger {form} {sum} {writer}\n{payload}")
}

fn files(root: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder is ours").flatten() {
            let metadata = entry.metadata().expect("nobody is left who removes it");
            match metadata.is_dir() {
                true => folders.push(entry.path()),
                false if metadata.is_file() && metadata.len() <= MOST => files.push(entry.path()),
                false => {}
            }
        }
    }
    files
}
