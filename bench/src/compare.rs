//! The same measurement of the gateway and its peers in one run, as a table in markdown.

use crate::camera;
use crate::peers::{Peer, Site, Transport};
use crate::result::{Row, notes};
use crate::swarm::{self, Plan};

#[derive(Clone)]
pub struct Comparison {
    pub site: Site,
    pub peers: Vec<Peer>,
    pub transports: Vec<Transport>,
    /// Numbers of readers, a row each.
    pub readers: Vec<usize>,
    pub seconds: u64,
    pub join_per_second: f64,
    pub stalled: usize,
    /// Of which the medians are shown.
    pub runs: usize,
}

/// Every tenth reader is sampled.
pub const SAMPLE_EVERY: usize = 10;

pub async fn run(c: &Comparison) -> anyhow::Result<()> {
    c.site.take_place()?;
    swarm::allow_many_files();
    let mut told: Vec<String> = Vec::new();
    println!("{}", Row::head());
    for transport in [Transport::Tcp, Transport::Udp, Transport::Whep] {
        if !c.transports.contains(&transport) {
            continue;
        }
        for readers in &c.readers {
            for peer in &c.peers {
                // Janus has its own way of asking for what WHEP asks for.
                let transport = match (peer, transport) {
                    (Peer::Janus, Transport::Whep) => Transport::Janus,
                    _ => transport,
                };
                if !peer.transports().contains(&transport) {
                    continue;
                }
                if let Some(why) = peer.missing() {
                    told.push(why);
                    continue;
                }
                let (rows, notes) = measure(c, *peer, transport, *readers).await;
                rows.iter().for_each(|r| println!("{}", r.line()));
                told.extend(notes);
            }
        }
    }
    told.sort();
    told.dedup();
    println!();
    told.iter().for_each(|n| println!("- {n}"));
    Ok(())
}

/// One or two rows: the second with readers that stall.
async fn measure(
    c: &Comparison,
    peer: Peer,
    transport: Transport,
    readers: usize,
) -> (Vec<Row>, Vec<String>) {
    let (mut plain, mut stalled, mut told) = (Vec::new(), Vec::new(), Vec::new());
    let name = format!("{} {} {readers}", peer.name(), transport.name());
    for _ in 0..c.runs.max(1) {
        match once(c, peer, transport, readers).await {
            Ok(outcome) => {
                plain.push(Row::new(
                    peer.name(),
                    transport.name(),
                    readers,
                    &outcome,
                    &outcome.window,
                ));
                if let Some(w) = &outcome.stalled {
                    let transport = format!("{}, {} of them stalled", transport.name(), c.stalled);
                    stalled.push(Row::new(peer.name(), &transport, readers, &outcome, w));
                }
                told.extend(
                    notes(&outcome, Some(camera::FPS))
                        .into_iter()
                        .map(|n| format!("{name}: {n}")),
                );
            }
            Err(error) => told.push(format!("{name}: {error:#}")),
        }
    }
    let rows = Row::median(&plain).into_iter().chain(Row::median(&stalled));
    (rows.collect(), told)
}

async fn once(
    c: &Comparison,
    peer: Peer,
    transport: Transport,
    readers: usize,
) -> anyhow::Result<swarm::Outcome> {
    let running = peer.start(&c.site)?;
    let entrance = running
        .entrance(transport)?
        .ok_or_else(|| anyhow::anyhow!("{} does not speak {}", peer.name(), transport.name()))?;
    swarm::run(&Plan {
        entrance,
        readers,
        seconds: c.seconds,
        join_per_second: c.join_per_second,
        sample_every: SAMPLE_EVERY,
        stalled: c.stalled,
        pid: Some(running.pid),
    })
    .await
}
