//! What of a release all slots may share, and with which modes its files lie on disk. Pure.
//!
//! Code is shared: the VM only reads it. Everything else a slot gets for itself, because programs and hot upgrades write
//! there (`priv`, `releases`, start scripts that render configuration).

/// Whether slots get a hard link to the host's one copy, which then nobody may write, or a copy of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    Linked,
    Copied,
}

impl Share {
    pub(crate) fn of(path: &str) -> Self {
        let mut parts = path.split('/');
        let linked = match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(top), Some(_), ..) if top.starts_with("erts-") => true,
            (Some("lib" | "erlang-shipment"), Some(_), Some("ebin"), Some(file), None) => {
                file.strip_suffix(".beam").is_some()
            }
            _ => false,
        };
        if linked { Self::Linked } else { Self::Copied }
    }

    /// Of the host's copy. A hard link has no mode of its own: what is linked can be read by all and written by none.
    pub(super) fn master_mode(self, packed: u32) -> u32 {
        match self {
            Self::Linked if packed & 0o111 != 0 => 0o555,
            Self::Linked => 0o444,
            Self::Copied => 0o600,
        }
    }
}

/// Of a slot's own copy: as packed, always the owner's to write, never anybody else's.
pub(super) fn copy_mode(packed: u32) -> u32 {
    packed & 0o755 | 0o600
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_shared_and_what_programs_write_is_not() {
        for linked in [
            "erts-13.1.5/bin/beam.smp",
            "erts-13.1.5/doc/a/b",
            "lib/demo-0.1.0/ebin/demo.beam",
            "erlang-shipment/demo/ebin/demo@@main.beam",
        ] {
            assert_eq!(Share::of(linked), Share::Linked, "{linked}");
        }
        for copied in [
            "erts-13.1.5",
            "lib/demo-0.1.0/ebin/demo.app",
            "lib/demo-0.1.0/ebin/sub/demo.beam",
            "lib/demo-0.1.0/priv/demo.beam",
            "lib/erts-1/x",
            "bin/demo",
            "releases/0.1.0/sys.config",
            "releases/erts-1/x",
            "erlang-shipment/entrypoint.sh",
        ] {
            assert_eq!(Share::of(copied), Share::Copied, "{copied}");
        }
    }

    #[test]
    fn no_mode_lets_others_write() {
        assert_eq!(Share::Linked.master_mode(0o777), 0o555);
        assert_eq!(copy_mode(0o777), 0o755);
        assert_eq!(copy_mode(0o400), 0o600);
        assert_eq!(copy_mode(0o664), 0o644);
    }
}
