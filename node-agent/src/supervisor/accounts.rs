//! Whom a replica runs as. Looked up in the host's accounts each time, because these change under a running agent.

use nix::unistd::{Group, User, getgrouplist};

use super::process::UserIds;

#[derive(Debug, thiserror::Error)]
pub(super) enum AccountError {
    #[error(
        "there is no user {name:?} on this host; create it with: useradd --system --shell /usr/sbin/nologin {name}"
    )]
    NoUser { name: String },
    #[error("there is no group {name:?} on this host; create it with: groupadd --system {name}")]
    NoGroup { name: String },
    #[error("the host's accounts cannot be read")]
    Accounts(#[from] nix::Error),
}

/// A user by name, and what its programs may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) ids: UserIds,
}

/// `None` where the agent is not root: then there is one user for all, its own.
pub(super) fn account(user: &str, group: &str) -> Result<Option<Account>, AccountError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let found = User::from_name(user)?.ok_or_else(|| AccountError::NoUser { name: user.to_owned() })?;
    let gid = if group.is_empty() {
        found.gid
    } else {
        Group::from_name(group)?.ok_or_else(|| AccountError::NoGroup { name: group.to_owned() })?.gid
    };
    // A user's name cannot hold a NUL, as it was found; an empty list is the safe side of that.
    let groups =
        std::ffi::CString::new(user).map_or_else(|_| Ok(Vec::new()), |name| getgrouplist(&name, gid))?;
    let groups = groups.into_iter().map(nix::unistd::Gid::as_raw).collect();
    Ok(Some(Account {
        name: found.name,
        ids: UserIds { uid: found.uid.as_raw(), gid: gid.as_raw(), groups },
    }))
}

/// The name of the user that the agent runs as, for replicas that share it.
pub(super) fn own_name() -> String {
    let uid = rustix::process::geteuid().as_raw();
    User::from_uid(uid.into()).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}
