//! A disk of a few megabytes that a test fills: a tmpfs, which takes root to mount.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Is gone when this is dropped, whoever still uses it.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// # Panics
    /// Without root, or where no tmpfs can be mounted.
    pub fn mount(at: &Path, megabytes: u32) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "to mount a small disk needs root: sudo cargo xtask test"
        );
        fs::create_dir_all(at).expect("the folder of a disk");
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).status();
        assert!(mounted.is_ok_and(|it| it.success()), "a tmpfs cannot be mounted at {}", at.display());
        Self(at.to_owned())
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// But for so many bytes.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn fill(&self, but: u64) {
        let mut ballast =
            File::options().create(true).append(true).open(self.ballast()).expect("a file to fill it");
        for size in [1 << 20, 4_096, 1] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
        let length = ballast.metadata().expect("its length").len();
        ballast.set_len(length.saturating_sub(but)).expect("room that is given back");
    }

    /// What was filled is free again.
    ///
    /// # Panics
    /// Where nothing was.
    pub fn clear(&self) {
        fs::remove_file(self.ballast()).expect("it was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
