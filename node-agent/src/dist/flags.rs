//! What each side of a connection says that it can do, as bits. Numbers from `kernel/include/dist.hrl` of OTP.

/// What we say: all that nodes of OTP 25 to 28 demand, and nothing that would have to be read otherwise (no atom cache, no
/// fragments: a message is one frame). Without `PUBLISHED`, hence hidden.
pub const OURS: u64 = EXTENDED_REFERENCES
    | DIST_MONITOR
    | FUN_TAGS
    | DIST_MONITOR_NAME
    | NEW_FUN_TAGS
    | EXTENDED_PIDS_PORTS
    | EXPORT_PTR_TAG
    | BIT_BINARIES
    | NEW_FLOATS
    | UTF8_ATOMS
    | MAP_TAG
    | BIG_CREATION
    | EXIT_PAYLOAD
    | HANDSHAKE_23
    | UNLINK_ID
    | MANDATORY_25_DIGEST
    | SPAWN
    | V4_NC;

const EXTENDED_REFERENCES: u64 = 0x4;
const DIST_MONITOR: u64 = 0x8;
const FUN_TAGS: u64 = 0x10;
const DIST_MONITOR_NAME: u64 = 0x20;
const NEW_FUN_TAGS: u64 = 0x80;
const EXTENDED_PIDS_PORTS: u64 = 0x100;
const EXPORT_PTR_TAG: u64 = 0x200;
const BIT_BINARIES: u64 = 0x400;
const NEW_FLOATS: u64 = 0x800;
const UTF8_ATOMS: u64 = 0x1_0000;
const MAP_TAG: u64 = 0x2_0000;
const BIG_CREATION: u64 = 0x4_0000;
/// Reasons of exits come as payloads of their own.
const EXIT_PAYLOAD: u64 = 0x40_0000;
/// The handshake of OTP 23 and later.
const HANDSHAKE_23: u64 = 0x100_0000;
const UNLINK_ID: u64 = 0x200_0000;
/// Stands for all that OTP 25 demands.
const MANDATORY_25_DIGEST: u64 = 0x400_0000;
/// Processes can be started on it, which is how calls are made.
const SPAWN: u64 = 1 << 32;
const V4_NC: u64 = 1 << 34;

/// What a peer must be able to do, with its name in OTP's sources.
const DEMANDED: [(u64, &str); 3] =
    [(HANDSHAKE_23, "HANDSHAKE_23"), (EXIT_PAYLOAD, "EXIT_PAYLOAD"), (SPAWN, "SPAWN")];

/// What a peer that says `flags` of itself cannot do and must.
pub fn lacking(flags: u64) -> Option<&'static str> {
    // The digest may stand for the bits that it sums up.
    let flags = if flags & MANDATORY_25_DIGEST == 0 { flags } else { flags | HANDSHAKE_23 };
    DEMANDED.iter().find(|(flag, _)| flags & flag == 0).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_hidden_and_one_message_is_one_frame() {
        const PUBLISHED: u64 = 0x1;
        const ATOM_CACHE: u64 = 0x2000;
        const FRAGMENTS: u64 = 0x80_0000;
        assert_eq!(OURS & (PUBLISHED | ATOM_CACHE | FRAGMENTS), 0);
        // 1 << 36 is what some take for the digest: OTP knows it as something else from 27 on.
        assert_eq!(OURS & (1 << 36), 0);
    }

    #[test]
    fn a_digest_stands_for_what_otp_25_demands() {
        assert_eq!(lacking(OURS), None);
        assert_eq!(lacking(OURS & !HANDSHAKE_23), None);
        assert_eq!(lacking(OURS & !HANDSHAKE_23 & !MANDATORY_25_DIGEST), Some("HANDSHAKE_23"));
        assert_eq!(lacking(OURS & !SPAWN), Some("SPAWN"));
    }
}
