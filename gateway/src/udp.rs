//! Many datagrams to one address with few system calls: UDP GSO (`UDP_SEGMENT`), or `sendmmsg` where it is missing.
//!
//! Here: the only unsafe code of the gateway, around `sendmsg`, `sendmmsg` and the registration of a socket. Not here: what is in the datagrams.

#![allow(
    unsafe_code,
    reason = "no safe wrapper of sendmsg with UDP_SEGMENT and of sendmmsg is at hand"
)]

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket as StdSocket};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use socket2::{SockAddr, SockRef};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The kernel's limit of segments in one call (UDP_MAX_SEGMENTS of older kernels).
const SEGMENTS_MAX: usize = 64;
/// A super-datagram must fit the 16-bit length of UDP over IPv4.
const BYTES_MAX: usize = 65_000;

/// Does segmentation work here? Found out once; switched off when the kernel refuses it later.
static GSO: LazyLock<AtomicBool> = LazyLock::new(|| AtomicBool::new(probe().unwrap_or(false)));

/// Does UDP segmentation work here?
pub fn has_gso() -> bool {
    GSO.load(Ordering::Relaxed)
}

/// Larger datagrams are cut, and then refused by their own checks.
const DATAGRAM_MAX: usize = 2048;

/// A UDP socket that wakes its task for what comes in and for nothing else: a socket that also waits for room is woken
/// after each datagram it sent, which costs more than the sending.
#[derive(Debug)]
pub struct Port {
    socket: AsyncFd<StdSocket>,
}

impl Port {
    /// To be called in the runtime whose tasks receive.
    ///
    /// # Errors
    /// When the system gives no more descriptors.
    pub fn new(socket: StdSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // SAFETY: the socket owns its descriptor, gives the same one as long as it lives, and lives in the AsyncFd.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { socket })
    }

    /// # Errors
    /// Faults of the socket; mostly an ICMP message about something that was sent.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get_ref().local_addr()
    }

    /// Waits for a datagram. Cancel-safe.
    ///
    /// # Errors
    /// As [`Self::local_addr`].
    pub async fn recv(&self) -> io::Result<(Bytes, SocketAddr)> {
        let receive = |s: &StdSocket| {
            let mut buf = [0; DATAGRAM_MAX];
            let (n, from) = s.recv_from(&mut buf)?;
            Ok((Bytes::copy_from_slice(&buf[..n]), from))
        };
        self.socket.async_io(Interest::READABLE, receive).await
    }

    /// Sends without waiting.
    ///
    /// # Errors
    /// No room, or faults of the socket or the route.
    pub fn try_send_to(&self, data: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.socket.get_ref().send_to(data, to)
    }
}

impl AsRawFd for Port {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Datagrams back to back, for one destination. Reuse it: [`Self::clear`] keeps the memory.
#[derive(Debug, Default)]
pub struct Burst {
    data: Vec<u8>,
    ends: Vec<usize>,
}

impl Burst {
    pub fn clear(&mut self) {
        self.data.clear();
        self.ends.clear();
    }

    /// Adds a datagram of these parts.
    pub fn push(&mut self, parts: &[&[u8]]) {
        for p in parts {
            self.data.extend_from_slice(p);
        }
        self.ends.push(self.data.len());
    }

    /// Adds the datagram that `build` appends; nothing when it fails.
    pub fn build<E>(&mut self, build: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let start = self.data.len();
        let built = build(&mut self.data);
        if built.is_ok() {
            self.ends.push(self.data.len());
        } else {
            self.data.truncate(start);
        }
        built
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        (0..self.len()).map(|i| self.datagram(i))
    }

    /// Datagrams.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn start(&self, i: usize) -> usize {
        if i == 0 { 0 } else { self.ends[i - 1] }
    }

    fn datagram(&self, i: usize) -> &[u8] {
        &self.data[self.start(i)..self.ends[i]]
    }

    fn size(&self, i: usize) -> usize {
        self.ends[i] - self.start(i)
    }

    /// How many datagrams from `first` on can go out as one: of equal size, but the last may be shorter.
    fn run(&self, first: usize) -> usize {
        let size = self.size(first);
        let most = SEGMENTS_MAX.min(BYTES_MAX / size.max(1)).max(1);
        let mut n = 1;
        while n < most && first + n < self.len() {
            let next = self.size(first + n);
            if next > size || next == 0 {
                break;
            }
            n += 1;
            if next < size {
                break;
            }
        }
        n
    }
}

/// What became of a burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub datagrams: usize,
    /// Not sent because the socket's buffer was full, or the kernel refused them.
    pub dropped: usize,
}

/// Sends a burst without waiting: what does not fit into the socket's buffer is dropped, as a network would. The socket
/// must be non-blocking.
///
/// # Errors
/// Faults of the socket or the route; the rest of the burst was not sent.
pub fn send(socket: &impl AsRawFd, to: SocketAddr, burst: &Burst) -> io::Result<Sent> {
    let to = SockAddr::from(to);
    let fd = socket.as_raw_fd();
    let mut sent = Sent::default();
    while sent.datagrams < burst.len() {
        match send_some(fd, &to, burst, sent.datagrams, GSO.load(Ordering::Relaxed)) {
            Ok(n) => sent.datagrams += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                sent.dropped = burst.len() - sent.datagrams;
                break;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(sent)
}

/// One system call, segmented when `gso`; gives how many datagrams it took.
fn send_some(
    fd: RawFd,
    to: &SockAddr,
    burst: &Burst,
    first: usize,
    gso: bool,
) -> io::Result<usize> {
    let run = burst.run(first);
    if run > 1 && gso {
        match send_segments(fd, to, burst, first, run) {
            Ok(()) => return Ok(run),
            Err(e) => match e.raw_os_error() {
                // The interface cannot (EIO), or this kernel or sandbox does not know it.
                Some(libc::EIO | libc::EOPNOTSUPP | libc::ENOPROTOOPT) => {
                    GSO.store(false, Ordering::Relaxed);
                    tracing::info!(error = %e, "UDP segmentation is not available; sending with sendmmsg");
                }
                // A segment larger than the path takes: singly they can be fragmented.
                Some(libc::EINVAL | libc::EMSGSIZE) => {}
                _ => return Err(e),
            },
        }
    }
    // Singly up to where segmentation helps again: a small packet ahead of a frame's large ones is usual.
    let count = (first + 1..burst.len())
        .position(|i| gso && burst.run(i) > 1)
        .map_or(burst.len() - first, |n| n + 1);
    send_many(fd, to, burst, first, count)
}

fn send_segments(
    fd: RawFd,
    to: &SockAddr,
    burst: &Burst,
    first: usize,
    run: usize,
) -> io::Result<()> {
    let bytes = &burst.data[burst.start(first)..burst.ends[first + run - 1]];
    let size = u16::try_from(burst.size(first))
        .map_err(|_| io::Error::from_raw_os_error(libc::EMSGSIZE))?;
    let mut iov = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // Room for one u16 control message; u64 for its alignment.
    let mut control = [0_u64; 4];
    // SAFETY: msghdr is plain data, all zeros is valid. `iov`, `bytes`, `to` and `control` outlive the call; sendmsg
    // only reads through `iov_base`. CMSG_FIRSTHDR points into `control`, which has room for CMSG_SPACE(2) = 24 bytes.
    let n = unsafe {
        let mut msg: libc::msghdr = mem::zeroed();
        msg.msg_name = to.as_ptr().cast_mut().cast();
        msg.msg_namelen = to.len();
        msg.msg_iov = &raw mut iov;
        msg.msg_iovlen = 1;
        msg.msg_control = control.as_mut_ptr().cast();
        msg.msg_controllen = libc::CMSG_SPACE(2) as _;
        let cmsg = libc::CMSG_FIRSTHDR(&raw const msg);
        (*cmsg).cmsg_level = libc::SOL_UDP;
        (*cmsg).cmsg_type = libc::UDP_SEGMENT;
        (*cmsg).cmsg_len = libc::CMSG_LEN(2) as _;
        libc::CMSG_DATA(cmsg).cast::<u16>().write_unaligned(size);
        libc::sendmsg(fd, &raw const msg, 0)
    };
    if n < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn send_many(
    fd: RawFd,
    to: &SockAddr,
    burst: &Burst,
    first: usize,
    count: usize,
) -> io::Result<usize> {
    let count = count.min(SEGMENTS_MAX);
    let mut iovs: Vec<libc::iovec> = (first..first + count)
        .map(|i| {
            let bytes = burst.datagram(i);
            libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            }
        })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = iovs
        .iter_mut()
        .map(|iov| {
            // SAFETY: mmsghdr is plain data, all zeros is valid.
            let mut m: libc::mmsghdr = unsafe { mem::zeroed() };
            m.msg_hdr.msg_name = to.as_ptr().cast_mut().cast();
            m.msg_hdr.msg_namelen = to.len();
            m.msg_hdr.msg_iov = iov;
            m.msg_hdr.msg_iovlen = 1;
            m
        })
        .collect();
    let length = libc::c_uint::try_from(count).unwrap_or(1);
    // SAFETY: `messages` holds `count` headers whose pointers (`iovs`, the burst, `to`) outlive the call; sendmmsg only
    // reads through them and writes `msg_len`.
    let n = unsafe { libc::sendmmsg(fd, messages.as_mut_ptr(), length, 0) };
    usize::try_from(n).or_else(|_| match io::Error::last_os_error() {
        // Some sandboxes know neither: one call a datagram.
        e if e.raw_os_error() == Some(libc::ENOSYS) => {
            SockRef::from(&fd_of(fd)).send_to(burst.datagram(first), to)?;
            Ok(1)
        }
        e => Err(e),
    })
}

/// The descriptor of a socket that the caller holds.
fn fd_of<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: `send` was given the open socket and lives no longer than its reference to it.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Does the kernel know `UDP_SEGMENT`?
fn probe() -> io::Result<bool> {
    let socket = StdSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let size: libc::c_int = 1200;
    // SAFETY: the pointer and the length describe `size`, which outlives the call.
    let r = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const size).cast(),
            mem::size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    Ok(r == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UdpSocket;

    /// How many datagrams each call takes.
    fn calls(sizes: &[usize]) -> Vec<usize> {
        let from = StdSocket::bind("127.0.0.1:0").unwrap();
        let to = StdSocket::bind("127.0.0.1:0").unwrap();
        let to = SockAddr::from(to.local_addr().unwrap());
        let mut burst = Burst::default();
        for size in sizes {
            burst.push(&[&vec![7; *size]]);
        }
        let mut out = Vec::new();
        while out.iter().sum::<usize>() < burst.len() {
            let sent = out.iter().sum();
            out.push(send_some(from.as_raw_fd(), &to, &burst, sent, true).unwrap());
        }
        out
    }

    #[test]
    fn a_small_packet_ahead_does_not_spoil_the_rest() {
        if !probe().unwrap_or(false) {
            eprintln!("skipped: no UDP segmentation here");
            return;
        }
        assert_eq!(calls(&[40, 1212, 1212, 1212, 300]), [1, 4]);
        assert_eq!(calls(&[40, 50, 1212, 1212, 30, 40]), [2, 3, 1]);
        assert_eq!(calls(&[1212; 14]), [14]);
    }

    async fn arrives(sizes: &[usize], gso: bool) {
        let gso = gso && probe().unwrap_or(false);
        let from = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut burst = Burst::default();
        for (i, size) in sizes.iter().enumerate() {
            let header = [u8::try_from(i).unwrap()];
            burst.push(&[&header, &vec![7; size - 1]]);
        }
        let address = SockAddr::from(to.local_addr().unwrap());
        let mut sent = 0;
        while sent < burst.len() {
            sent += send_some(from.as_raw_fd(), &address, &burst, sent, gso).unwrap();
        }
        let mut buf = [0; 2048];
        for (i, size) in sizes.iter().enumerate() {
            let (n, _) = to.recv_from(&mut buf).await.unwrap();
            assert_eq!((n, usize::from(buf[0])), (*size, i));
        }
    }

    #[tokio::test]
    async fn datagrams_arrive_whole_and_in_order_either_way() {
        let mut sizes = vec![40, 1212, 1212, 1212, 300, 1212, 20, 20, 20, 900];
        sizes.extend([1200; 60]);
        arrives(&sizes, true).await;
        arrives(&sizes, false).await;
    }
}
