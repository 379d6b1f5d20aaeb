//! Builds the console: the crate `web` for wasm32 with a compiler and target folder of its own, then the bundle.
//!
//! Two compilers in one target folder would build everything again at each turn. The bundling itself (bindings, hashed names,
//! compression) is the crate `web-bundle`, which is heavy to build and only built here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::command::{command, need_space, run};
use crate::setup::detect::{WebCompiler, web_compiler};
use crate::workspace;

const TARGET: &str = "wasm32-unknown-unknown";
const PROFILE: &str = "wasm-release";

/// From `web/` to `web/dist`, ready to be embedded into `deployex`. What is there already and newer than all it is made of
/// stays.
pub fn bundle() -> Result<()> {
    let wasm = compile()?;
    let (web, bundler) = (workspace::root().join("web"), workspace::root().join("web-bundle/src"));
    let dist = web.join("dist");
    let made_of = [wasm.clone(), web.join("index.html"), web.join("static"), bundler];
    if is_newer(&dist.join("index.html"), &made_of) {
        println!("the console in {} is as new as its sources", dist.display());
        return Ok(());
    }
    run(command("cargo")
        .current_dir(workspace::root())
        .args(["run", "--quiet", "--package", "web-bundle", "--"])
        .arg(wasm)
        .arg(&web)
        .arg(dist))
}

/// Than each of these files, and each file in these folders.
fn is_newer(made: &Path, sources: &[PathBuf]) -> bool {
    let Ok(made) = modified(made) else { return false };
    let files = |source: &PathBuf| match fs::read_dir(source) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => vec![source.clone()],
    };
    // A file that cannot be looked at counts as new: then the bundler says what is wrong with it.
    sources.iter().flat_map(files).all(|file| modified(&file).is_ok_and(|at| at < made))
}

fn modified(path: &Path) -> std::io::Result<SystemTime> {
    fs::metadata(path)?.modified()
}

/// Returns the compiled module.
fn compile() -> Result<PathBuf> {
    let target = workspace::target().join("web");
    need_space(&target, 1500, "building the console")?;
    let Some(compiler) = web_compiler() else {
        bail!("there is no Rust compiler for {TARGET} here: run `cargo xtask setup --for demo`");
    };
    println!("building the console for {TARGET}");
    run(cargo(compiler).arg("--target-dir").arg(&target)).context("the console was not built")?;
    Ok(target.join(TARGET).join(PROFILE).join("web.wasm"))
}

fn cargo(compiler: WebCompiler) -> Command {
    let arguments = ["build", "--package", "web", "--locked", "--target", TARGET, "--profile", PROFILE];
    match compiler {
        WebCompiler::Rustup => {
            let mut cargo = command("cargo");
            cargo.current_dir(workspace::root()).args(arguments);
            cargo
        }
        WebCompiler::Debian => {
            // Debian's compiler has the standard library as source only, so it is built along. What `cargo run` set for us
            // names the other toolchain and has to go.
            let mut cargo = command("/usr/bin/cargo");
            cargo.current_dir(workspace::root()).args(arguments).arg("-Zbuild-std=std,panic_abort");
            for name in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"]
            {
                cargo.env_remove(name);
            }
            cargo
                .env("RUSTC", "/usr/bin/rustc")
                .env("RUSTDOC", "/usr/bin/rustdoc")
                .env("RUSTC_BOOTSTRAP", "1");
            cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-ld-19");
            cargo
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_made_again_once_anything_it_is_made_of_is_newer() {
        let folder = tempfile::tempdir().unwrap();
        let [made, file, sources] = ["index.html", "app.wasm", "static"].map(|name| folder.path().join(name));
        fs::create_dir(&sources).unwrap();
        let old = SystemTime::UNIX_EPOCH;
        for path in [&file, &sources.join("style.css")] {
            fs::write(path, "").unwrap();
            fs::File::open(path).unwrap().set_modified(old).unwrap();
        }
        let sources = [file, sources];
        assert!(!is_newer(&made, &sources), "there is none");
        fs::write(&made, "").unwrap();
        assert!(is_newer(&made, &sources));
        let style = folder.path().join("static/style.css");
        fs::File::open(&style).unwrap().set_modified(modified(&made).unwrap()).unwrap();
        assert!(!is_newer(&made, &sources));
        assert!(!is_newer(&made, &[folder.path().join("absent")]));
    }
}
