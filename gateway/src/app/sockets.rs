//! The listening sockets: taken over from systemd when the socket unit passed them, bound otherwise.

use std::net::{SocketAddr, TcpListener};

use anyhow::Context;
use listenfd::ListenFd;

/// Sockets passed by systemd (sd_listen_fds(3)), taken one by one.
pub struct Sockets {
    passed: Vec<TcpListener>,
}

impl Sockets {
    /// Takes what systemd passed; none when not started by a socket unit.
    ///
    /// # Errors
    /// When a passed descriptor is not a TCP listener.
    pub fn take() -> anyhow::Result<Self> {
        let mut fds = ListenFd::from_env();
        let mut passed = Vec::new();
        for i in 0..fds.len() {
            if let Some(l) = fds
                .take_tcp_listener(i)
                .context("kerbside.socket must only have ListenStream= lines with TCP ports")?
            {
                passed.push(l);
            }
        }
        Ok(Self { passed })
    }

    /// The listener for `addr`, non-blocking: a passed one with the same port, or a new one.
    ///
    /// # Errors
    /// When the address cannot be bound; the text names the configuration key.
    pub fn tcp(&mut self, key: &str, addr: SocketAddr) -> anyhow::Result<TcpListener> {
        let of_port = self
            .passed
            .iter()
            .position(|l| l.local_addr().is_ok_and(|a| a.port() == addr.port()));
        let listener = match of_port {
            Some(i) => self.passed.swap_remove(i),
            None => bind(addr).with_context(|| {
                format!(
                    "listen.{key} = \"{addr}\" cannot be used; is another program on this port?"
                )
            })?,
        };
        listener.set_nonblocking(true)?;
        Ok(listener)
    }
}

fn bind(addr: SocketAddr) -> std::io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}
