//! Whom a replica runs as. The host's accounts change under a running agent, and to look one up may take as long as all else
//! that a start needs together, longer where a directory service is asked: so what was found last is used, and looked up anew
//! for the next time.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, PoisonError};

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

/// Whom every user and group that is asked for was, when it was looked up last.
#[derive(Default)]
pub(super) struct Accounts {
    known: Mutex<HashMap<Asked, (Stamp, Account)>>,
}

/// A user and a group by name.
type Asked = (String, String);

/// Of the host's own lists: another says that any account may be another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stamp([Option<(u64, i64, i64, u64)>; 3]);

impl Stamp {
    fn now() -> Self {
        let stamp = |path| {
            let file = fs::metadata(path).ok()?;
            Some((file.ino(), file.mtime(), file.mtime_nsec(), file.len()))
        };
        Self(["/etc/passwd", "/etc/group", "/etc/nsswitch.conf"].map(stamp))
    }
}

impl Accounts {
    /// As [`account`], out of memory where the lists are as they were.
    pub(super) fn of(&self, user: &str, group: &str) -> Result<Option<Account>, AccountError> {
        let asked = (user.to_owned(), group.to_owned());
        let stamp = Stamp::now();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&asked).cloned();
        match known {
            Some((then, account)) if then == stamp => Ok(Some(account)),
            _ => self.look_up(asked, stamp),
        }
    }

    /// For the next time: also where no list of the host's tells that an account has changed. What is not there any more is
    /// forgotten, so that the next start says so.
    pub(super) fn look_again(&self, user: &str, group: &str) {
        drop(self.look_up((user.to_owned(), group.to_owned()), Stamp::now()));
    }

    fn look_up(&self, asked: Asked, stamp: Stamp) -> Result<Option<Account>, AccountError> {
        let found = account(&asked.0, &asked.1);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match &found {
            Ok(Some(account)) => known.insert(asked, (stamp, account.clone())),
            Ok(None) | Err(_) => known.remove(&asked),
        };
        found
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_looked_up_is_known_until_it_is_another() {
        let accounts = Accounts::default();
        let looked_up = account("root", "").unwrap();
        assert_eq!(accounts.of("root", "").unwrap(), looked_up);
        assert!(
            matches!(accounts.of("nobody-of-that-name", ""), Err(AccountError::NoUser { .. }))
                || looked_up.is_none()
        );
        let Some(looked_up) = looked_up else { return };
        // The host's lists are as they were: nobody is asked.
        let asked = ("root".to_owned(), String::new());
        let other = Account { name: "other".to_owned(), ..looked_up.clone() };
        accounts.known.lock().unwrap().get_mut(&asked).unwrap().1 = other.clone();
        assert_eq!(accounts.of("root", "").unwrap(), Some(other));
        // They are others.
        accounts.known.lock().unwrap().get_mut(&asked).unwrap().0 = Stamp::default();
        assert_eq!(accounts.of("root", "").unwrap(), Some(looked_up.clone()));
        accounts.known.lock().unwrap().get_mut(&asked).unwrap().1.name = "other".to_owned();
        accounts.look_again("root", "");
        assert_eq!(accounts.of("root", "").unwrap(), Some(looked_up));
        assert_eq!(accounts.known.lock().unwrap().len(), 1, "who is not there is not kept");
    }
}
