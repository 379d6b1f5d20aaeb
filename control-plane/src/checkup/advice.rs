//! What to do about what is found, in a sentence each.

/// Stands for the application's name.
pub(super) const APPLICATION: &str = "APP";

pub(super) const SAME_NAMES: &str = "give each replica a name of its own: take RELEASE_NODE out of `env`, `env_file` and the \
    release's own env.sh, and with `cluster: fleet` leave `distribution.host` out, so that each host's own name is used";
pub(super) const LOOPBACK_NAMES: &str = "leave `distribution.host` out or give the hosts names that the others resolve to an \
    address of their network, then `deployex restart APP`";
pub(super) const NAME_PORTS: &str = "write `distribution: { ports: [9100, 9200] }` and let these and epmd's (4369) through from \
    host to host, then `deployex restart APP`";
pub(super) const WIDER_PORTS: &str =
    "widen `distribution.ports`, or give each application a range of its own, then `deployex restart APP`";
pub(super) const OTHER_TLS: &str = "start all of them with the same setting: `deployex restart APP`";
pub(super) const USE_TLS: &str =
    "write `distribution: { tls: managed }`, unless the network between the hosts is trusted";
pub(super) const SEE_SHOW: &str =
    "`deployex app show APP` says why, and `deployex logs APP` what it printed last";
pub(super) const NODE_LOST: &str = "see whether the host is up, whether `deployex-agent` runs there and reaches the control plane's port 5002";
pub(super) const NAMELESS: &str = "take RELEASE_DISTRIBUTION=none out of `env`, `env_file` and the release's own env.sh or vm.args; \
    or write `distribution: { mode: off }` and `cluster: off` if it is not to be a node";

const COOKIE: &str = "give all of them the same cookie: take RELEASE_COOKIE and `-setcookie` out of `env`, `env_file` and the \
    release's own env.sh or vm.args, or set the same everywhere, then `deployex restart APP`";
const TLS: &str = "have all of them talk TLS with certificates of one authority (`distribution: { tls: managed }`), with `ssl` in \
    the release, then `deployex restart APP`";
const LOG: &str = "the replica's log says what it makes of it: `deployex logs APP`";

/// Where the agent is not connected to the node, which is on its own host. By [`proto::replicas::ErlangNode::kind`].
pub(super) fn of_connection(kind: &str) -> &'static str {
    match kind {
        "epmd" => {
            "see that it is started with the ERL_EPMD_PORT that the agent gives it (not its own in `env` or env.sh) and without \
             `-start_epmd false`; where epmd is gone the agent starts it again within 5 s"
        }
        "refused" => {
            "see whether it listens on 127.0.0.1 too: `inet_dist_use_interface` in its vm.args may keep it from that"
        }
        "cookie" => {
            "see that the cookie it is started with is the one it uses: its own code may call `set_cookie`"
        }
        "tls" => TLS,
        "name-clash" => {
            "another agent of this machine has a replica of this name: give each agent an ERL_EPMD_PORT of its own"
        }
        "silent" => {
            "its virtual machine does not answer: see its load (`deployex app show APP`), or restart it"
        }
        _ => LOG,
    }
}

/// Where two nodes are not connected. By [`proto::replicas::Missed::kind`].
pub(super) fn of_mesh(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "" => return None,
        "unresolved" => {
            "make that name known on this host (DNS, or /etc/hosts), or call the nodes by names or addresses that every host \
             knows (`distribution: { mode: long }` uses the hosts' full names)"
        }
        "loopback" => {
            "in /etc/hosts of this host, or in DNS, give that name the address that the other host has in the network"
        }
        "epmd" => {
            "let this host reach epmd there (TCP port 4369, or its ERL_EPMD_PORT): through the firewall, and listening on more \
             than loopback. The agent's own does with `cluster: fleet`; one of somebody else that was there first has to be \
             started without `-address`. Where epmd does not know the node, that was started with another ERL_EPMD_PORT"
        }
        "refused" | "silent" => {
            "let this host reach the ports that the nodes there listen on: name them (`distribution: { ports: [9100, 9200] }`) \
             and let them through the firewall"
        }
        "cookie" => COOKIE,
        "tls" => TLS,
        "name-clash" => SAME_NAMES,
        _ => LOG,
    })
}
