//! `web-bundle MODULE.wasm WEB DIST`: from the compiled console and the files beside its source to what a browser loads.
//!
//! Into `DIST` go `index.html` and `assets/`, where every name carries a hash of its contents, so that all of `assets/` may be
//! cached for ever; each file with its brotli and gzip form beside it. `cargo xtask web` compiles and calls this. It is a crate
//! of its own because the bindings' generator takes longer to build than all of xtask.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod compress;
mod names;
mod shorten;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use wasm_bindgen_cli_support::Bindgen;

use crate::names::{fill, hashed};

/// What a first visit may cost. A console that is slow to open is opened less.
const FIRST_LOAD_LIMIT: usize = 400_000;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [module, web, dist] = arguments.as_slice() else {
        eprintln!("usage: web-bundle MODULE.wasm WEB DIST");
        return ExitCode::from(2);
    };
    match bundle(module, web, dist) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bundle(module: &Path, web: &Path, dist: &Path) -> Result<()> {
    let new = dist.with_extension("new");
    let bindings = dist.with_extension("bindings");
    for folder in [&new, &bindings] {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    bind(module, &bindings)?;
    lay_out(&bindings, web, &new)?;
    fs::remove_dir_all(&bindings)?;

    // Before it takes its place: what is there and new is not bundled again, so a limit that is broken would be told once.
    report(&compress::folder(&new)?)?;
    if dist.exists() {
        fs::remove_dir_all(dist).with_context(|| format!("cannot replace {}", dist.display()))?;
    }
    fs::rename(&new, dist).with_context(|| format!("cannot create {}", dist.display()))
}

/// Generates the JavaScript that the module is called through.
fn bind(module: &Path, out: &Path) -> Result<()> {
    Bindgen::new()
        .input_path(module)
        .out_name("app")
        .web(true)?
        .typescript(false)
        .remove_name_section(true)
        .remove_producers_section(true)
        .generate(out)
        .with_context(|| format!("no bindings could be made for {}", module.display()))
}

/// Puts everything under its hashed name. Files that mention others come after those.
fn lay_out(bindings: &Path, web: &Path, dist: &Path) -> Result<()> {
    let assets = dist.join("assets");
    fs::create_dir_all(&assets)?;
    let snippets = bindings.join("snippets");
    if snippets.is_dir() {
        // Their folder's name has a hash of its own, and the bindings import them by it.
        copy_folder(&snippets, &assets.join("snippets"))?;
    }

    let mut urls = BTreeMap::new();
    let put = |name: &str, contents: &[u8]| -> Result<String> {
        let hashed = hashed(name, contents);
        fs::write(assets.join(&hashed), contents)?;
        Ok(format!("/assets/{hashed}"))
    };
    let (sheets, others): (Vec<_>, Vec<_>) = files(&web.join("static"))?
        .into_iter()
        .partition(|path| path.extension().is_some_and(|extension| extension == "css"));
    for path in others {
        let name = file_name(&path)?;
        urls.insert(name.clone(), put(&name, &fs::read(&path)?)?);
    }
    for path in sheets {
        let name = file_name(&path)?;
        let filled =
            fill(&fs::read_to_string(&path)?, &urls).with_context(|| format!("in {}", path.display()))?;
        urls.insert(name.clone(), put(&name, shorten::style(&filled).as_bytes())?);
    }
    let (wasm, script) = shorten::names(
        &fs::read(bindings.join("app_bg.wasm"))?,
        &fs::read_to_string(bindings.join("app.js"))?,
    )?;
    let wasm = put("app.wasm", &wasm)?;
    let script = put("app.js", shorten::script(&script).as_bytes())?;
    // No inline script, so that the content security policy needs no exception.
    let boot = format!("import init from \"{script}\";\ninit({{ module_or_path: \"{wasm}\" }});\n");
    urls.insert("boot.js".into(), put("boot.js", boot.as_bytes())?);
    urls.insert("app.js".into(), script);
    urls.insert("app.wasm".into(), wasm);

    let page = web.join("index.html");
    let text = fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    let filled = fill(&text, &urls).with_context(|| format!("in {}", page.display()))?;
    fs::write(dist.join("index.html"), filled)?;
    Ok(())
}

fn file_name(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    Ok(name.with_context(|| format!("{} has no usable name", path.display()))?.to_owned())
}

/// The files directly in a folder, in order; none where it is absent.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            bail!("{} is a folder: the console's static files lie flat", path.display());
        }
        found.push(path);
    }
    found.sort();
    Ok(found)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn report(sizes: &[compress::Sizes]) -> Result<()> {
    println!("{:<44} {:>10} {:>10} {:>10}", "file", "bytes", "gzip", "brotli");
    for size in sizes {
        println!("{:<44} {:>10} {:>10} {:>10}", size.name, size.plain, size.gzip, size.brotli);
    }
    let first_load: usize = sizes.iter().map(|size| size.brotli).sum();
    println!("first load, compressed: {first_load} bytes of at most {FIRST_LOAD_LIMIT}");
    if first_load > FIRST_LOAD_LIMIT {
        bail!("the console's first load is {first_load} bytes compressed; the limit is {FIRST_LOAD_LIMIT}");
    }
    Ok(())
}
