//! A disk of a few megabytes that a test fills: a tmpfs, which takes root to mount.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Is gone when this is dropped, whoever still uses it.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// # Errors
    /// Without root, or where no tmpfs can be mounted.
    pub fn mount(at: &Path, megabytes: u32) -> Result<Self> {
        let is_root = rustix::process::geteuid().is_root();
        ensure!(is_root, "to mount a small disk needs root: sudo cargo xtask test");
        fs::create_dir_all(at).with_context(|| format!("cannot make {}", at.display()))?;
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).status()?;
        ensure!(mounted.success(), "a tmpfs cannot be mounted at {}", at.display());
        Ok(Self(at.to_owned()))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// But for so many bytes.
    ///
    /// # Errors
    /// Where it cannot be written at all.
    pub fn fill(&self, but: u64) -> Result<()> {
        let mut ballast = File::options().create(true).append(true).open(self.ballast())?;
        for size in [1 << 20, 4_096, 1] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
        let length = ballast.metadata()?.len();
        Ok(ballast.set_len(length.saturating_sub(but))?)
    }

    /// What was filled is free again.
    ///
    /// # Errors
    /// Where nothing was.
    pub fn clear(&self) -> Result<()> {
        Ok(fs::remove_file(self.ballast())?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
