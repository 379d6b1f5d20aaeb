//! Every socket of the control plane, bound before anything is changed: a start that finds a port taken leaves nothing behind.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::StartError;
use crate::config::Config;
use crate::home::Home;
use crate::listen::Listener;

pub(super) struct Sockets {
    pub console: Listener,
    pub console_address: SocketAddr,
    pub local: Listener,
    pub agents: TcpListener,
    pub agents_address: SocketAddr,
}

impl Sockets {
    pub(super) async fn bind(config: &Config, home: &Home) -> Result<Self, StartError> {
        let wanted = SocketAddr::new(config.console.bind, config.console.port);
        let console = Listener::tcp(wanted, config.console.tls.as_ref()).await?;
        let console_address = console.address().unwrap_or(wanted);
        let address = SocketAddr::new(config.agents.bind, config.agents.port);
        let bound = TcpListener::bind(address).await;
        let agents = bound.map_err(|source| StartError::Agents { address, source })?;
        let agents_address = agents.local_addr().unwrap_or(address);
        let local = Listener::socket(&home.socket()).await?;
        Ok(Self { console, console_address, local, agents, agents_address })
    }
}
