//! A sample's release grown to the size of a large one: with copies of the host's own Erlang/OTP libraries, because what is
//! in them (code, shared objects, text) is what releases are made of. It starts as the sample does.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::{command, find, need_space, run_quietly};
use crate::fixtures::{self, Sample, Tarball};
use crate::workspace;

/// Of the tarball, packed.
pub(super) const LARGE: u64 = 50_000_000;

/// Each copy of OTP is worth some 20 MB; a host with less of it than that has no OTP to speak of.
const MOST_COPIES: u32 = 20;

/// At least [`LARGE`], made once per sample and its sources: `target/bench` keeps it.
pub(super) fn large(sample: Sample) -> Result<Tarball> {
    let small = fixtures::tarball(sample, "0.1.0")?;
    let folder = workspace::target().join("bench");
    let name = format!("{sample}-0.1.0-{}", &small.digest()?[..12]);
    let path = folder.join(format!("{name}.tar.gz"));
    if !path.exists() {
        println!("growing {} to {} MB", small.path.display(), LARGE / 1_000_000);
        need_space(&folder, 600, "a large release")?;
        let tree = folder.join("tree");
        let _ = fs::remove_dir_all(&tree);
        fs::create_dir_all(&tree).with_context(|| format!("cannot create {}", tree.display()))?;
        run_quietly(command("tar").arg("-xzf").arg(&small.path).arg("-C").arg(&tree))?;
        let new = folder.join("new.tar.gz");
        grow(&tree, &new)?;
        fs::remove_dir_all(&tree)?;
        fs::rename(&new, &path)?;
    }
    Ok(Tarball { path, ..small })
}

fn grow(tree: &Path, tarball: &Path) -> Result<()> {
    let otp = otp_libraries()?;
    for copy in 0..MOST_COPIES {
        for library in fs::read_dir(&otp)?.flatten() {
            let name = library.file_name().to_string_lossy().into_owned();
            // NAME-VERSION, and no name twice.
            let to = tree.join("lib").join(format!("copy{copy}_{name}"));
            run_quietly(command("cp").arg("-rL").arg(library.path()).arg(&to))?;
        }
        let mut tar = command("tar");
        run_quietly(
            tar.arg("-czf")
                .arg(tarball)
                .arg("-C")
                .arg(tree)
                .args(["bin", "lib", "releases"])
                .args(erts(tree)),
        )?;
        if fs::metadata(tarball)?.len() >= LARGE {
            return Ok(());
        }
    }
    bail!("{} is too small to grow a release with", otp.display())
}

fn erts(tree: &Path) -> Vec<String> {
    let entries = fs::read_dir(tree).into_iter().flatten().flatten();
    entries.filter_map(|it| it.file_name().into_string().ok()).filter(|it| it.starts_with("erts-")).collect()
}

fn otp_libraries() -> Result<PathBuf> {
    let erl = find("erl").context("Erlang/OTP is not installed: run `cargo xtask setup`")?;
    let erl = fs::canonicalize(erl)?;
    let root = erl.parent().and_then(Path::parent).context("erl lies in OTP's folder bin")?;
    let lib = root.join("lib");
    if !lib.is_dir() {
        bail!("{} is not there, so there is nothing to grow a release with", lib.display());
    }
    Ok(lib)
}
