//! Where a program of a slot runs and what it finds there: its folders, its cookie, and the order to a keeper to start it.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::Context;
use proto::ids::ReleaseKey;
use proto::pb;
use rustix::fs::{Mode, OFlags, open};

use super::super::accounts::{Account, own_name};
use super::super::launch::{self, Command, Host, Places};
use super::super::otp_tls::{self, Source};
use super::super::probe::Order;
use super::super::process::{LOG_MODE, LaunchSpec};
use super::super::slot::name;
use super::super::{Shared, epmd};
use super::{SlotContext, chain, log_folder};
use crate::replica::Ticket;

/// What lies on the disk belongs to a user and is of a language: of these, the deployment is right.
fn started_anew(deployed: pb::Application, assigned: pb::Application) -> pb::Application {
    let pb::Application { language, run_as_user, run_as_group, .. } = deployed;
    pb::Application { language, run_as_user, run_as_group, ..assigned }
}

/// `assigned`: the settings of the assignment, where it wants this very release. They are gone by where those of the
/// deployment were lost: it would never start again otherwise. `request`: the last restart that was asked for and done.
pub(super) async fn launch_spec(
    shared: &Shared,
    context: &SlotContext,
    ticket: Ticket,
    release: &ReleaseKey,
    assigned: Option<pb::Application>,
    request: &str,
) -> anyhow::Result<LaunchSpec> {
    let ledger = shared.paths.ledger(&context.id);
    let deployed = match ledger.deployed() {
        Err(fault) if fault.was_set_aside() => {
            tracing::warn!(fault = %chain(&fault), "the settings of the deployment were lost");
            None
        }
        other => other?,
    };
    let is_counted = match ledger.deployed_for() {
        Err(fault) if fault.was_set_aside() => {
            tracing::warn!(fault = %chain(&fault), "for which start the settings of the deployment were taken is lost");
            ledger.store_deployed_for(request)?;
            true
        }
        other => other?.is_none_or(|it| it == request),
    };
    let app = match (deployed, assigned) {
        // Somebody asked for this start: it is with what is wanted now.
        (Some(deployed), Some(assigned)) if !is_counted => {
            let app = started_anew(deployed, assigned);
            ledger.store_deployed(&app)?;
            ledger.store_deployed_for(request)?;
            app
        }
        (Some(app), _) => app,
        (None, Some(app)) => {
            ledger.store_deployed(&app)?;
            app
        }
        (None, None) => anyhow::bail!(
            "it is not known with which settings {} was deployed, and another release is wanted",
            name(release)
        ),
    };
    let surroundings = surroundings(shared, context, &app, context.folder.current())?;
    if epmd::is_used_by(&app) {
        let user = surroundings.account.as_ref().map(|it| &it.ids);
        // Without it the node starts one of its own out of its release: worse, but it runs.
        if let Err(error) = shared.epmd.ensure_soon(&context.folder.current(), user).await {
            tracing::warn!(error = %chain(&error), "no epmd");
        }
    }
    let Surroundings { places, host, account } = &surroundings;
    let command = launch::replica(&app, context.id.slot.number(), places, host)?;
    write_cookie(places, &launch::cookie(&app, host), account.as_ref())?;
    lay_out_tls(shared, context, &app, &surroundings).await?;
    let logs = shared.paths.logs(&context.id);
    Ok(spec(ticket, command, &surroundings, logs))
}

/// A command that asks something of the replica: its program, as its user, in its environment and work folder.
pub(in crate::supervisor) fn probe_order(
    shared: &Shared,
    context: &SlotContext,
    app: &pb::Application,
    line: &str,
) -> anyhow::Result<Order> {
    let Surroundings { places, host, account } =
        surroundings(shared, context, app, context.folder.current())?;
    let Command { program, args, env } = launch::probe(app, context.id.slot.number(), &places, &host, line)?;
    Ok(Order { program, args, env, cwd: places.work, user: account.map(|it| it.ids) })
}

pub(super) struct Surroundings {
    pub(super) places: Places,
    pub(super) host: Host,
    pub(super) account: Option<Account>,
}

/// The slot's folders, made where they are missing, and what the host adds to the environment.
pub(super) fn surroundings(
    shared: &Shared,
    context: &SlotContext,
    app: &pb::Application,
    release: PathBuf,
) -> anyhow::Result<Surroundings> {
    let account = shared.accounts.of(&app.run_as_user, &app.run_as_group)?;
    let slot = context.folder.path();
    let places = Places {
        release,
        home: shared.paths.home(&context.id),
        tmp: slot.join("tmp"),
        work: slot.join("work"),
    };
    for folder in [&places.home, &places.tmp, &places.work] {
        own_folder(folder, account.as_ref()).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    log_folder::own(&shared.paths.log_folder(&context.id), context.id.app.as_str())?;
    let env_file = match app.env_file.as_str() {
        "" => Vec::new(),
        path => launch::env_file(
            &fs::read_to_string(path).with_context(|| format!("cannot read env_file {path}"))?,
        ),
    };
    let user = account.as_ref().map_or_else(own_name, |it| it.name.clone());
    let otp_tls = Source::of(app, shared.otp_tls.as_deref())?.map(|it| it.options(slot));
    let (epmd_port, timezone) = (shared.epmd.port(), shared.timezone.clone());
    let host = Host { user, epmd_port, timezone, otp_tls, env_file };
    Ok(Surroundings { places, host, account })
}

/// The certificates that there are now, for who is about to start.
pub(super) async fn lay_out_tls(
    shared: &Shared,
    context: &SlotContext,
    app: &pb::Application,
    around: &Surroundings,
) -> anyhow::Result<()> {
    let Surroundings { host, account, .. } = around;
    let source = Source::of(app, shared.otp_tls.as_deref())?;
    if let (Some(source), Some(options)) = (&source, &host.otp_tls) {
        let nodename = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let of_node = launch::node_host(app, host, &nodename);
        otp_tls::lay_out((shared, &context.id), source, of_node, options, account.as_ref()).await?;
    }
    Ok(())
}

pub(super) fn spec(
    ticket: Ticket,
    command: Command,
    around: &Surroundings,
    [stdout, stderr]: [PathBuf; 2],
) -> LaunchSpec {
    LaunchSpec {
        ticket: ticket.0,
        program: command.program,
        args: command.args,
        env: command.env,
        cwd: around.places.work.clone(),
        user: around.account.as_ref().map(|it| it.ids.clone()),
        stdout_log: stdout,
        stderr_log: stderr,
        log_mode: LOG_MODE,
    }
}

/// 0700 and the account's; the folders above it can be passed through by everybody.
fn own_folder(folder: &Path, account: Option<&Account>) -> io::Result<()> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if let Some(account) = account {
        chown(folder, Some(account.ids.uid), Some(account.ids.gid))?;
    }
    Ok(())
}

/// The folder is the application's: what it put under this name is neither followed, waited for nor read to its end.
fn holds(path: &Path, text: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = open(path, flags, Mode::empty()).map(fs::File::from) else { return false };
    let mut there = Vec::new();
    file.metadata().is_ok_and(|it| it.is_file())
        && file.take(text.len() as u64 + 1).read_to_end(&mut there).is_ok()
        && there == text.as_bytes()
}

/// `$HOME/.erlang.cookie`, 0400: where Erlang looks when nobody passes one, and where ours never is in an argument list.
pub(super) fn write_cookie(places: &Places, cookie: &str, account: Option<&Account>) -> anyhow::Result<()> {
    let path = places.home.join(".erlang.cookie");
    if holds(&path, cookie) {
        return Ok(());
    }
    let work = || {
        // The folder is the application's: what it put there under this name is not followed.
        let temporary = places.home.join(".erlang.cookie.new");
        let _ = fs::remove_file(&temporary);
        fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(&temporary).and_then(
            |mut file| {
                io::Write::write_all(&mut file, cookie.as_bytes())?;
                if let Some(account) = account {
                    std::os::unix::fs::fchown(&file, Some(account.ids.uid), Some(account.ids.gid))?;
                }
                file.set_permissions(fs::Permissions::from_mode(0o400))
            },
        )?;
        fs::rename(&temporary, &path)
    };
    work().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_read_from_a_file_alone_and_no_further_than_it_is_long() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".erlang.cookie");
        fs::write(&path, "secret").unwrap();
        assert!(holds(&path, "secret"));
        assert!(!holds(&path, "secre") && !holds(&path, "secrets"));
        fs::rename(&path, folder.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(!holds(&path, "secret"), "a link");
        fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(!holds(&path, "secret"), "a pipe, which nobody writes to");
    }
}
