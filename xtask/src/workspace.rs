//! Where things lie in this repository.

use std::env;
use std::path::{Path, PathBuf};

/// The repository's root. Known when this crate is compiled, as it is only ever run from its own checkout.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Cargo's target folder, also where it was moved by `CARGO_TARGET_DIR`.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// A program of this workspace, as `cargo build --workspace` leaves it.
pub fn program(name: &str) -> PathBuf {
    target().join("debug").join(name)
}

/// As `cargo build --release` leaves it.
pub fn release_program(name: &str) -> PathBuf {
    target().join("release").join(name)
}

/// As `cargo build --profile measured` leaves it.
pub fn measured_program(name: &str) -> PathBuf {
    target().join("measured").join(name)
}
