//! ICE-TCP (RFC 6544), passive only: for clients whose network lets no UDP through. Packets are framed by their
//! length (RFC 4571).
//!
//! A connection belongs to the session of its first connectivity check. Not here: what the packets are.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};

use super::ice::ufrag_of;
use super::inbox::Inbox;
use super::metrics::dropped;
use super::sessions::{Datagram, Sessions, TcpPath, Via};
use crate::stream::Kick;

/// Connections that have not shown a session yet.
const STRANGERS_MAX: usize = 64;
/// Time for the first check.
const FIRST: Duration = Duration::from_secs(10);
/// A connection that says nothing for so long is closed; checks come every few seconds.
const SILENCE: Duration = Duration::from_secs(40);
/// Frames waiting to be written.
const WRITES_MAX: usize = 32;
const PACKET_MAX: usize = 4096;

/// The packets, each behind its length, in one buffer.
pub fn frame<'a>(packets: impl Iterator<Item = &'a [u8]> + Clone) -> Bytes {
    let size = packets.clone().map(|p| p.len() + 2).sum();
    let mut out = BytesMut::with_capacity(size);
    for p in packets {
        if let Ok(len) = u16::try_from(p.len()) {
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(p);
        }
    }
    out.freeze()
}

/// The next packet out of the stream; Err when its length cannot be right.
fn unframe(buf: &mut BytesMut) -> Result<Option<Bytes>, ()> {
    let Some(len) = buf.first_chunk::<2>() else {
        return Ok(None);
    };
    let len = usize::from(u16::from_be_bytes(*len));
    if len > PACKET_MAX {
        return Err(());
    }
    if buf.len() < len + 2 {
        return Ok(None);
    }
    buf.advance(2);
    Ok(Some(buf.split_to(len).freeze()))
}

/// Accepts connections until the gateway stops.
pub async fn accept(
    listener: TcpListener,
    sessions: Sessions,
    mut shutdown: watch::Receiver<bool>,
) {
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    loop {
        let accepted = tokio::select! {
            _ = shutdown.wait_for(|s| *s) => return,
            a = listener.accept() => a,
        };
        let (stream, from) = match accepted {
            Ok(a) => a,
            Err(error) => {
                tracing::debug!(%error, "WebRTC over TCP: accept");
                dropped("tcp_accept");
                // Out of descriptors: others have to close first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = strangers.clone().try_acquire_owned() else {
            dropped("tcp_too_many_strangers");
            continue;
        };
        let (sessions, mut shutdown) = (sessions.clone(), shutdown.clone());
        tokio::spawn(async move {
            let first = tokio::select! {
                _ = shutdown.wait_for(|s| *s) => return,
                f = tokio::time::timeout(FIRST, first(stream, from, &sessions)) => f,
            };
            drop(permit);
            match first {
                Ok(Some(connection)) => {
                    tokio::select! {
                        _ = shutdown.wait_for(|s| *s) => {}
                        () = connection.run() => {}
                    }
                }
                Ok(None) => dropped("tcp_stranger"),
                Err(_) => dropped("tcp_silent"),
            }
        });
    }
}

struct Connection {
    from: SocketAddr,
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    buf: BytesMut,
    inbox: Arc<Inbox>,
    first: Bytes,
}

/// Reads the first packet and finds its session.
async fn first(stream: TcpStream, from: SocketAddr, sessions: &Sessions) -> Option<Connection> {
    // Media must not wait for more of it.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let (mut read, write) = stream.into_split();
    let mut buf = BytesMut::with_capacity(PACKET_MAX + 2);
    loop {
        if let Some(packet) = unframe(&mut buf).ok()? {
            let inbox = sessions.by_ufrag(ufrag_of(&packet)?)?;
            return Some(Connection {
                from,
                read,
                write,
                buf,
                inbox,
                first: packet,
            });
        }
        if read.read_buf(&mut buf).await.ok()? == 0 {
            return None;
        }
    }
}

impl Connection {
    async fn run(self) {
        let (writes, queue) = mpsc::channel(WRITES_MAX);
        let Self {
            from,
            read,
            write,
            buf,
            inbox,
            first,
        } = self;
        // Its first check is not looked at yet: whoever knows a session's name may come so far.
        let Some(_place) = inbox.connection() else {
            return dropped("tcp_too_many");
        };
        let room = Arc::<OnceLock<Kick>>::default();
        let via = Via::Tcp(TcpPath {
            queue: writes,
            room: room.clone(),
        });
        let pass = |data| Datagram {
            from,
            via: via.clone(),
            data,
        };
        if !inbox.put_when_room(pass(first)).await {
            return;
        }
        tokio::select! {
            () = read_all(read, buf, &inbox, pass) => {}
            () = write_all(write, queue, &room) => {}
            () = inbox.until_closed() => {}
        }
    }
}

async fn read_all(
    mut read: OwnedReadHalf,
    mut buf: BytesMut,
    inbox: &Inbox,
    pass: impl Fn(Bytes) -> Datagram,
) {
    loop {
        loop {
            match unframe(&mut buf) {
                Ok(Some(packet)) => {
                    // Full: the socket is not read, TCP holds the sender up.
                    if !inbox.put_when_room(pass(packet)).await {
                        return;
                    }
                }
                Ok(None) => break,
                Err(()) => return dropped("tcp_bad_frame"),
            }
        }
        buf.reserve(PACKET_MAX + 2);
        match tokio::time::timeout(SILENCE, read.read_buf(&mut buf)).await {
            Ok(Ok(n)) if n > 0 => {}
            _ => return,
        }
    }
}

async fn write_all(
    mut write: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Bytes>,
    room: &OnceLock<Kick>,
) {
    while let Some(framed) = queue.recv().await {
        if write.write_all(&framed).await.is_err() {
            return;
        }
        if let Some(reader) = room.get() {
            reader.kick();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ice::{self, tests::request};
    use super::super::inbox::CONNECTIONS_MAX;
    use super::super::sessions::{Entry, Role};
    use super::*;
    use crate::registry::{self, Principal};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packets_come_out_as_they_went_in(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            cut in 1usize..50,
        ) {
            let packets: Vec<Bytes> = packets.into_iter().map(Bytes::from).collect();
            let stream = frame(packets.iter().map(|p| &p[..]));
            let (mut buf, mut out) = (BytesMut::new(), Vec::new());
            for part in stream.chunks(cut) {
                buf.extend_from_slice(part);
                while let Some(p) = unframe(&mut buf).unwrap() {
                    out.push(p);
                }
            }
            prop_assert_eq!(out, packets);
            prop_assert!(buf.is_empty());
        }

        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            let mut buf = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = unframe(&mut buf) {}
        }
    }

    #[tokio::test]
    async fn who_knows_a_sessions_name_gets_few_connections() {
        let sessions = Sessions::new(1);
        let inbox = Arc::<Inbox>::default();
        let entry = Entry {
            id: "id".into(),
            owner: Principal::User(registry::User::new("anna", registry::Role::Operator)),
            role: Role::Play,
            remote_ufrag: "them".to_owned(),
            inbox: inbox.clone(),
            restart: ice::Restart::default(),
        };
        let _seat = sessions.open("us", entry).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (_stop, stopping) = watch::channel(false);
        let accepting = tokio::spawn(accept(listener, sessions, stopping));
        let check = request("us:them", "whatever", true);
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let mut stream = TcpStream::connect(at).await.unwrap();
            stream
                .write_all(&frame([&check[..]].into_iter()))
                .await
                .unwrap();
            inbox.next().await;
            open.push(stream);
        }
        let mut more = TcpStream::connect(at).await.unwrap();
        more.write_all(&frame([&check[..]].into_iter()))
            .await
            .unwrap();
        assert_eq!(more.read(&mut [0; 10]).await.unwrap_or(0), 0, "closed");
        accepting.abort();
    }
}
