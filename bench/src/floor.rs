//! What the kernel alone takes to send one frame to one reader: the least that a server on this machine can cost.
//!
//! The same bytes as the camera's frames, with neither protocol nor encryption, to sockets that are drained every 5 ms.

use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kerbside::udp::{self, Burst};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

const FPS: u32 = 30;
/// As the camera's: a small packet (SEI), then 13 of full size and the rest.
const PACKETS: [usize; 15] = [
    64, 1212, 1212, 1212, 1212, 1212, 1212, 1212, 1212, 1212, 1212, 1212, 1212, 1212, 600,
];
const DRAIN_EVERY: Duration = Duration::from_millis(5);

pub fn run(readers: usize, seconds: u64) -> anyhow::Result<()> {
    println!("| kernel alone | readers | ms CPU per reader-second | µs per packet |");
    println!("|---|---|---|---|");
    let frames = u32::try_from(seconds)? * FPS;
    let (far, mut near) = tcp(readers)?;
    let each = measure(far, frames, |i| write(&mut near[i]))?;
    row("TCP, one writev a frame", readers, each);
    for (name, small_first) in [
        ("UDP, one segmented burst a frame", false),
        ("UDP, a small packet and a segmented burst", true),
    ] {
        let far = (0..readers)
            .map(|_| UdpSocket::bind("127.0.0.1:0"))
            .collect::<Result<Vec<_>, _>>()?;
        let to: Vec<_> = far
            .iter()
            .map(UdpSocket::local_addr)
            .collect::<Result<_, _>>()?;
        let near = UdpSocket::bind("127.0.0.1:0")?;
        near.set_nonblocking(true)?;
        let mut burst = Burst::default();
        for size in &PACKETS[usize::from(!small_first)..] {
            burst.push(&[&vec![7; *size]]);
        }
        let each = measure(far, frames, |i| {
            udp::send(&near, to[i], &burst)?;
            Ok(())
        })?;
        row(name, readers, each);
    }
    Ok(())
}

fn row(name: &str, readers: usize, each: Duration) {
    let us = each.as_secs_f64() * 1e6;
    println!(
        "| {name} | {readers} | {:.2} | {:.2} |",
        us * f64::from(FPS) / 1e3,
        us / PACKETS.len() as f64
    );
}

fn tcp(readers: usize) -> std::io::Result<(Vec<TcpStream>, Vec<TcpStream>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (mut far, mut near) = (Vec::new(), Vec::new());
    for _ in 0..readers {
        far.push(TcpStream::connect(listener.local_addr()?)?);
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        near.push(stream);
    }
    Ok((far, near))
}

fn write(to: &mut TcpStream) -> std::io::Result<()> {
    let data = [7; 1500];
    let slices: Vec<_> = PACKETS
        .iter()
        .flat_map(|size| [IoSlice::new(&data[..16]), IoSlice::new(&data[..*size - 12])])
        .collect();
    // What does not fit is left out: the far end is drained, so it does.
    to.write_vectored(&slices).map(|_| ())
}

/// What is read and forgotten.
trait Drain: Send + 'static {
    fn drain(&mut self, buf: &mut [u8]);
    fn set_nonblocking(&self) -> std::io::Result<()>;
}

impl Drain for TcpStream {
    fn drain(&mut self, buf: &mut [u8]) {
        while self.read(buf).is_ok_and(|n| n > 0) {}
    }

    fn set_nonblocking(&self) -> std::io::Result<()> {
        Self::set_nonblocking(self, true)
    }
}

impl Drain for UdpSocket {
    fn drain(&mut self, buf: &mut [u8]) {
        while self.recv(buf).is_ok() {}
    }

    fn set_nonblocking(&self) -> std::io::Result<()> {
        Self::set_nonblocking(self, true)
    }
}

/// Processor time of this thread per frame and reader; the other ends are read on the other CPU.
fn measure<D: Drain>(
    mut far: Vec<D>,
    frames: u32,
    mut send: impl FnMut(usize) -> std::io::Result<()>,
) -> anyhow::Result<Duration> {
    let readers = far.len();
    far.iter().try_for_each(D::set_nonblocking)?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = stop.clone();
    let drain = std::thread::spawn(move || {
        on_cpu(1);
        let mut buf = vec![0; 64 << 10];
        while !stopping.load(Ordering::Relaxed) {
            far.iter_mut().for_each(|f| f.drain(&mut buf));
            std::thread::sleep(DRAIN_EVERY);
        }
    });
    on_cpu(0);
    let mut used = Duration::ZERO;
    for _ in 0..frames {
        let began = Instant::now();
        let before = thread_time();
        for i in 0..readers {
            send(i)?;
        }
        used += thread_time() - before;
        std::thread::sleep((Duration::from_secs(1) / FPS).saturating_sub(began.elapsed()));
    }
    stop.store(true, Ordering::Relaxed);
    let _ = drain.join();
    Ok(used / (frames * u32::try_from(readers)?))
}

fn on_cpu(cpu: usize) {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    if let Err(error) = sched_setaffinity(None, &cpus) {
        eprintln!("not bound to CPU {cpu}: {error}");
    }
}

fn thread_time() -> Duration {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(t.tv_sec).unwrap_or(0),
        u32::try_from(t.tv_nsec).unwrap_or(0),
    )
}
