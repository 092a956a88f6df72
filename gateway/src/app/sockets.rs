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

    /// As [`Self::tcp`]; None, with a line in the log, when nobody asked for this port and it cannot be had.
    ///
    /// # Errors
    /// As [`Self::tcp`].
    pub fn tcp_if(
        &mut self,
        asked: bool,
        key: &str,
        addr: SocketAddr,
    ) -> anyhow::Result<Option<TcpListener>> {
        match self.tcp(key, addr) {
            Err(error) if !asked => {
                tracing::warn!(key, %addr, error = format!("{error:#}"), "this TLS port stays closed: give it another address, or \"off\"");
                Ok(None)
            }
            listener => listener.map(Some),
        }
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

/// A socket for datagrams, non-blocking, with room for a burst.
///
/// # Errors
/// When the address cannot be bound; the text names the configuration key.
pub fn udp(key: &str, addr: SocketAddr) -> anyhow::Result<std::net::UdpSocket> {
    const BURST_BYTES: usize = 1 << 20;
    let socket = std::net::UdpSocket::bind(addr).with_context(|| {
        format!("listen.{key} = \"{addr}\" cannot be used; is another program on this port?")
    })?;
    // The system may allow less.
    if let Err(error) = socket2::SockRef::from(&socket).set_recv_buffer_size(BURST_BYTES) {
        tracing::debug!(%error, key, "the socket's buffer stays as it is");
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_nobody_asked_for_may_be_taken() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap();
        let mut sockets = Sockets { passed: Vec::new() };
        assert!(sockets.tcp_if(false, "https", addr).unwrap().is_none());
        let fault = sockets.tcp_if(true, "https", addr).unwrap_err();
        assert!(fault.to_string().contains("listen.https"), "{fault}");
        drop(taken);
        assert!(sockets.tcp_if(false, "https", addr).unwrap().is_some());
    }
}
