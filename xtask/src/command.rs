//! Running other programs, with errors that say which program, what it did and where its output is.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// A command that reads nothing: CI has no standard input, and nobody is asked.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    // Cargo tells us which package we are. Told to another cargo, that is a changed environment to some build scripts
    // (ring's), and half of the workspace is compiled anew whenever one goes from `cargo xtask` to `cargo` and back.
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_about_us(name)) {
        command.env_remove(name);
    }
    command
}

fn is_about_us(variable: &OsStr) -> bool {
    let name = variable.to_string_lossy();
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

/// Runs it with its output shown. Any status but zero is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command.status().map_err(|error| not_started(&shown, command, error))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(())
}

/// Runs it with its output kept, and shown only in the error.
pub fn run_quietly(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command.output().map_err(|error| not_started(&shown, command, error))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` ended with {}\n{stdout}{stderr}", output.status);
    }
    Ok(stdout)
}

/// Where a program lies on `PATH`, or in `/usr/sbin` and `/sbin`, which an ordinary user's `PATH` often lacks.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|folder| folder.join(program))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

fn not_started(shown: &str, command: &Command, error: std::io::Error) -> anyhow::Error {
    let program = command.get_program().to_string_lossy().into_owned();
    let hint = if error.kind() == ErrorKind::NotFound {
        format!("{program} is not installed: run `cargo xtask setup`")
    } else {
        format!("{program} could not be started")
    };
    anyhow::Error::new(error).context(hint).context(format!("`{shown}` did not run"))
}

/// Free space where `path` lies (or will lie), in MiB.
pub fn free_mib(path: &Path) -> Result<u64> {
    let existing = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let space = rustix::fs::statvfs(existing)
        .with_context(|| format!("cannot tell how much space is free at {}", existing.display()))?;
    Ok(space.f_bavail * space.f_frsize / (1024 * 1024))
}

/// Says so before work starts that would fill the disk half-way.
pub fn need_space(path: &Path, mib: u64, what_for: &str) -> Result<()> {
    let free = free_mib(path)?;
    if free < mib {
        let or = match path.starts_with(workspace::target()) {
            true => ", or set CARGO_TARGET_DIR to a larger disk",
            false => "",
        };
        bail!(
            "{what_for} needs about {mib} MiB at {}, and {free} MiB are free: make room there{or}",
            path.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_named_with_its_arguments_and_output() {
        let error = run_quietly(command("sh").args(["-c", "echo told; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("`sh -c echo told; exit 3` ended with exit status: 3"), "{error}");
        assert!(error.contains("told"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named_with_what_to_do() {
        let error = format!("{:#}", run(&mut command("no-such-program-here")).unwrap_err());
        assert!(error.contains("no-such-program-here is not installed: run `cargo xtask setup`"), "{error}");
    }

    #[test]
    fn too_little_space_is_said_in_mebibytes() {
        let error = need_space(Path::new("/"), u64::MAX, "the build").unwrap_err().to_string();
        assert!(error.starts_with("the build needs about") && error.ends_with("make room there"), "{error}");
        let error = need_space(&workspace::target(), u64::MAX, "the build").unwrap_err().to_string();
        assert!(error.ends_with("set CARGO_TARGET_DIR to a larger disk"), "{error}");
    }
}
