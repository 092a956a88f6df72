//! `kerbside-bench`: figures of bench/RESULTS.md, each with its command. A benchmark is no test: nothing fails here.

mod accuracy;
mod args;
mod camera;
mod compare;
mod feed;
mod floor;
mod mqtt;
mod mqtt_client;
mod peers;
mod process;
mod result;
mod rtsp_client;
mod soak;
mod swarm;

use std::time::Duration;

use clap::Parser;

use args::{Args, What};
use result::{Row, notes, quantile};

/// Between two attempts of a camera.
const AGAIN: Duration = Duration::from_millis(500);

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let threads = match args.what {
        // Many publishers that do nothing but write; the swarm keeps to one thread and a counting one.
        What::Mqtt { .. } | What::Idle { .. } | What::Feed { .. } => {
            tokio::runtime::Builder::new_multi_thread()
        }
        _ => tokio::runtime::Builder::new_current_thread(),
    }
    .enable_all()
    .build()?;
    threads.block_on(run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    match args.what {
        What::Swarm(s) => {
            let plan = s.plan()?;
            let outcome = swarm::run(&plan).await?;
            println!("{}", Row::head());
            let name = s.transport.name();
            let row = |w| Row::new("server", name, plan.readers, &outcome, w).line();
            println!("{}", row(&outcome.window));
            if let Some(w) = &outcome.stalled {
                println!("{}", row(w));
                println!(
                    "\nThe second row: {} of the readers have stalled.",
                    plan.stalled
                );
            }
            notes(&outcome, None).iter().for_each(|n| println!("- {n}"));
        }
        What::Camera(c) => {
            let mut to = c.output().await?;
            // A camera comes back, as cameras do; that it had to is told.
            while let Err(error) = camera::publish(to, c.gop_s).await {
                eprintln!("camera lost, tried again: {error}");
                to = loop {
                    tokio::time::sleep(AGAIN).await;
                    if let Ok(to) = c.output().await {
                        break to;
                    }
                };
            }
        }
        What::Compare(c) => compare::run(&c.comparison(args.kerbside)).await?,
        What::Floor { readers, seconds } => floor::run(readers, seconds)?,
        What::Soak { joins, pin } => {
            soak::run(&args::site(args.kerbside, 1, pin), joins)
                .await?
                .print();
        }
        What::Feed {
            devices,
            screens,
            stalled,
            seconds,
            pin,
        } => {
            let plan = feed::Plan {
                devices,
                screens,
                stalled,
                seconds,
                pin: pin.then_some(0),
            };
            feed::run(&args.kerbside, plan).await?.print(&plan);
        }
        What::Mqtt {
            connections,
            per_second,
            seconds,
            qos,
            tls,
        } => {
            let load = mqtt::Load {
                connections,
                per_second,
                seconds,
                qos,
                tls,
            };
            for r in mqtt::run(&args.kerbside, load).await? {
                println!(
                    "| {} | {} messages | {:.1} µs CPU per message, {:.1} of them user |",
                    r.name, r.messages, r.us_per_message, r.user_us
                );
            }
        }
        What::Accuracy {
            devices,
            hours,
            seed,
        } => {
            for (is_clean, is_live_only) in [(false, false), (false, true), (true, false)] {
                accuracy::print(&accuracy::Plan {
                    devices,
                    seconds: hours * 3600,
                    seed,
                    is_clean,
                    is_live_only,
                });
                println!();
            }
        }
        What::Filter { devices, rounds } => {
            let mut rates = Vec::new();
            for _ in 0..5 {
                rates.push(accuracy::filter_rate(devices, rounds)?);
            }
            rates.sort_by(f64::total_cmp);
            println!(
                "| filter updates, {devices} devices | {:.0} a second of one core (median of 5) | {} bytes a track |",
                quantile(&rates, 0.5),
                size_of::<kerbside::picture::track::Track>()
            );
        }
        What::Idle { devices } => {
            let mut ready: Vec<f64> = Vec::new();
            for _ in 0..5 {
                let (g, _, _) = process::Gateway::start(&args.kerbside, &[], None)?;
                ready.push(g.ready_after.as_secs_f64() * 1e3);
            }
            ready.sort_by(f64::total_cmp);
            let (rss, kb) = mqtt::idle(&args.kerbside, devices).await?;
            println!(
                "| ready after exec | {:.0} ms (median of 5) |",
                quantile(&ready, 0.5)
            );
            println!(
                "| idle memory, {devices} devices registered | {:.1} MB |",
                rss as f64 / 1e6
            );
            println!("| per idle connected device, of {devices} | {kb:.1} kB |");
        }
    }
    Ok(())
}
