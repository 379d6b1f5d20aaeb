//! The same program under a later version: of one source there is one build.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use xtask::workspace;

/// The version of what was built.
pub const THIS: &str = env!("CARGO_PKG_VERSION");
/// As long, so that nothing in the file moves.
pub const LATER: &str = "7.7.7";

/// Makes it: everything in the program that reads as its version.
pub fn later(name: &str, place: &Path) -> PathBuf {
    assert_eq!(THIS.len(), LATER.len());
    let place = place.join(format!("{name}-{LATER}"));
    let made = Command::new("sed")
        .arg(format!("s/{}/{LATER}/g", THIS.replace('.', "[.]")))
        .arg(workspace::program(name))
        .env("LC_ALL", "C")
        .stdout(File::create(&place).expect("the folder is ours"))
        .status();
    assert!(made.expect("sed can be run").success());
    let mode = fs::metadata(workspace::program(name)).expect("the program is built").permissions();
    fs::set_permissions(&place, mode).expect("the file is ours");
    place
}
