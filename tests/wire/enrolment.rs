//! How a host joins, and how it does not.

use std::os::unix::fs::PermissionsExt as _;

use control_plane::clock::Time;
use node_agent::link::{EnrolError, Identity, IdentityError};

use crate::fleet::{ControlPlane, enrol};

#[tokio::test]
async fn a_host_joins_with_a_token_and_keeps_its_key_to_itself() {
    let plane = ControlPlane::start().await;
    let folder = tempfile::tempdir().unwrap();
    let identity = enrol(folder.path(), plane.address, plane.good_token().await, "web-1").await.unwrap();
    assert_eq!(identity.host.log_path.as_deref(), Some("/var/log/deployex".as_ref()));
    let nodes = plane.db.nodes().await.unwrap();
    assert_eq!((nodes[0].id, nodes[0].name.as_str()), (identity.node, "web-1"));
    assert_eq!(nodes[0].labels["zone"], "a");

    let kept = folder.path().join("identity");
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&kept), 0o700);
    for file in std::fs::read_dir(&kept).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
    assert_eq!(Identity::load(&kept).unwrap().node, identity.node);

    let again = enrol(folder.path(), plane.address, plane.good_token().await, "web-2").await.unwrap_err();
    assert!(matches!(again, EnrolError::Identity(IdentityError::Enrolled(_))), "{again:?}");
}

#[tokio::test]
async fn a_used_expired_or_unknown_token_is_refused_and_nothing_is_left_behind() {
    let plane = ControlPlane::start().await;
    let used = plane.good_token().await;
    let first = tempfile::tempdir().unwrap();
    enrol(first.path(), plane.address, used.clone(), "web-1").await.unwrap();
    let expired = plane.token(1, Time(1)).await;
    let unknown = proto::join_token::JoinToken::new("u".repeat(64), used.ca).unwrap();
    for token in [used, expired, unknown] {
        let folder = tempfile::tempdir().unwrap();
        let error = enrol(folder.path(), plane.address, token, "web-2").await.unwrap_err();
        assert!(
            matches!(&error, EnrolError::Refused(why) if why.contains("deployex node token")),
            "{error:?}"
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
    assert_eq!(plane.db.nodes().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_name_that_is_taken_costs_no_use_of_the_token() {
    let plane = ControlPlane::start().await;
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    enrol(one.path(), plane.address, plane.good_token().await, "web-1").await.unwrap();
    let token = plane.good_token().await;
    let error = enrol(two.path(), plane.address, token.clone(), "web-1").await.unwrap_err();
    assert!(error.to_string().contains("--name"), "{error}");
    enrol(two.path(), plane.address, token, "web-2").await.unwrap();
}

#[tokio::test]
async fn a_control_plane_that_did_not_make_the_token_is_never_shown_it() {
    let (ours, other) = (ControlPlane::start().await, ControlPlane::start().await);
    let folder = tempfile::tempdir().unwrap();
    let error = enrol(folder.path(), other.address, ours.good_token().await, "web-1").await.unwrap_err();
    assert!(matches!(error, EnrolError::Foreign(_)), "{error:?}");
}
