//! Refuses a release build without the console, which would be found out only by whoever opens it.

use std::path::Path;

fn main() {
    let index = Path::new(env!("CARGO_MANIFEST_DIR")).join("../web/dist/index.html");
    println!("cargo:rerun-if-changed={}", index.display());
    let release = std::env::var_os("PROFILE").is_some_and(|profile| profile == "release");
    assert!(
        !release || index.exists(),
        "web/dist is missing, so this release would have no console: run `cargo xtask web` first"
    );
}
