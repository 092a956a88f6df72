//! Readers that come and go, thousands of them: does the server get back to where it was?

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::peers::{Peer, Running, Site, Transport};
use crate::process::{Memory, Process};
use crate::swarm;

/// Readers that are joining or leaving at a time.
const AT_ONCE: usize = 50;
/// Long enough for the last connections to close and for a stream's ring (10 s by default) to be full.
const IDLE: Duration = Duration::from_secs(20);
const FAULTS_SHOWN: usize = 3;

/// What a server holds at one moment, told to the reader of the output.
pub struct Moment {
    pub name: &'static str,
    pub memory: Memory,
}

/// Of a whole soak.
pub struct Soak {
    pub joins: usize,
    pub faults: Vec<String>,
    pub took: Duration,
    pub cpu: Duration,
    pub moments: Vec<Moment>,
}

/// Joins and leaves the gateway by all its transports in turn.
pub async fn run(site: &Site, joins: usize) -> anyhow::Result<Soak> {
    site.take_place()?;
    swarm::allow_many_files();
    let running = Peer::Kerbside.start(site)?;
    let process = Process::of(running.pid);
    let mut moments = Vec::new();
    let mut mark = |name| -> anyhow::Result<()> {
        moments.push(Moment {
            name,
            memory: process.memory()?,
        });
        Ok(())
    };
    // What is made once, at the first reader of each kind, is not growth, and neither is a ring that fills.
    let mut faults = visit(&running, AT_ONCE).await?;
    tokio::time::sleep(IDLE).await;
    mark("before")?;
    let (began, cpu) = (Instant::now(), process.cpu()?);
    faults.extend(visit(&running, joins / 2).await?);
    mark("half way")?;
    faults.extend(visit(&running, joins - joins / 2).await?);
    let (took, cpu) = (began.elapsed(), process.cpu()? - cpu);
    mark("after")?;
    tokio::time::sleep(IDLE).await;
    mark("after 20 s of idling")?;
    Ok(Soak {
        joins,
        faults,
        took,
        cpu,
        moments,
    })
}

/// So many visits; what failed.
async fn visit(running: &Running, joins: usize) -> anyhow::Result<Vec<String>> {
    let mut entrances = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp, Transport::Whep] {
        entrances.extend(running.entrance(transport)?);
    }
    let mut visits = JoinSet::new();
    let mut faults = Vec::new();
    for entrance in entrances.iter().cycle().take(joins) {
        if visits.len() == AT_ONCE {
            faults.extend(ended(&mut visits).await);
        }
        let entrance = entrance.clone();
        visits.spawn(async move { swarm::visit(&entrance).await });
    }
    while !visits.is_empty() {
        faults.extend(ended(&mut visits).await);
    }
    Ok(faults)
}

async fn ended(visits: &mut JoinSet<anyhow::Result<()>>) -> Option<String> {
    match visits.join_next().await? {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(error) => Some(error.to_string()),
    }
}

impl Soak {
    pub fn print(&self) {
        println!(
            "{} joins and leaves (RTSP/TCP, RTSP/UDP, WHEP in turn, {AT_ONCE} at a time) in {:.0} s; {:.1} ms CPU of the server each; {} failed",
            self.joins,
            self.took.as_secs_f64(),
            self.cpu.as_secs_f64() * 1e3 / self.joins.max(1) as f64,
            self.faults.len()
        );
        for fault in self.faults.iter().take(FAULTS_SHOWN) {
            println!("- {fault}");
        }
        println!("\n| when | MB RSS | MB PSS | open files | threads |\n|---|---|---|---|---|");
        for m in &self.moments {
            println!(
                "| {} | {:.1} | {:.1} | {} | {} |",
                m.name,
                m.memory.rss as f64 / 1e6,
                m.memory.pss as f64 / 1e6,
                m.memory.files,
                m.memory.threads
            );
        }
    }
}
