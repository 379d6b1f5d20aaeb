//! Refuses a release build without the console, which would be found out only by whoever opens it.

#[path = "src/assets/bundle.rs"]
mod bundle;

use std::path::Path;

fn main() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../web/dist");
    // A debug build reads the console from this folder at each request, whenever it was built; but it finds there only what
    // lies in a folder that was there when the program was compiled.
    if let Err(error) = std::fs::create_dir_all(&dist) {
        println!("cargo::warning=cannot create {}: {error}", dist.display());
    }
    let index = dist.join("index.html");
    let profile = std::env::var_os("PROFILE").unwrap_or_default();
    let profile = profile.to_string_lossy();
    // A file that is not there would make every build begin anew, so it is watched only where it decides something.
    let watched = if bundle::is_needed(&profile) { &index } else { Path::new("build.rs") };
    println!("cargo:rerun-if-changed={}", watched.display());
    println!("cargo:rerun-if-changed=src/assets/bundle.rs");
    if let Err(refused) = bundle::check(&profile, index.exists()) {
        println!("cargo::error={refused}");
    }
}
