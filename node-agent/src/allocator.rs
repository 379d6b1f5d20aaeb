//! How the C library's allocator is to keep memory: for a program that waits far more than it works.

/// One pool for all threads. By itself glibc gives each thread one of its own, up to eight for each core, and what was freed in
/// one is of no use to another: with ten replicas the agent had 20.3 MB instead of 15.5 (`cargo xtask bench footprint --replicas 10`).
///
/// For the beginning of the program, before it has threads. Elsewhere than with glibc nothing is done.
pub fn share_one_pool() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "no library offers it, and a variable would be inherited by replicas")]
    // SAFETY: two numbers; it changes how the allocator works from here on, and there is one thread.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1);
    }
}
