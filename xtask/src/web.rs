//! Builds the console: the crate `web` for wasm32 with a compiler and target folder of its own, then the bundle.
//!
//! Two compilers in one target folder would build everything again at each turn. The bundling itself (bindings, hashed names,
//! compression) is the crate `web-bundle`, which is heavy to build and only built here.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{command, need_space, run};
use crate::setup::detect::{WebCompiler, web_compiler};
use crate::workspace;

const TARGET: &str = "wasm32-unknown-unknown";
const PROFILE: &str = "wasm-release";

/// Is there a console to build?
pub fn exists() -> bool {
    workspace::root().join("web/index.html").exists()
}

/// From `web/` to `web/dist`, ready to be embedded into `deployex`.
pub fn bundle() -> Result<()> {
    let wasm = compile()?;
    let web = workspace::root().join("web");
    run(command("cargo")
        .current_dir(workspace::root())
        .args(["run", "--quiet", "--package", "web-bundle", "--"])
        .arg(wasm)
        .arg(&web)
        .arg(web.join("dist")))
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
