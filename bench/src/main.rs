//! `kerbside-bench`: figures of bench/RESULTS.md, each with its command. A benchmark is no test: nothing fails here.

mod camera;
mod fanout;
mod mqtt;
mod process;
mod rtsp;
mod rtsp_client;
mod whep;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Measures the gateway: processor time, latency, memory")]
struct Args {
    /// The gateway's binary (release).
    #[arg(long, default_value = "target/release/kerbside")]
    kerbside: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// RTSP/TCP readers of one 4 Mbit/s camera.
    Rtsp {
        #[arg(long, default_value_t = 100)]
        readers: usize,
        #[arg(long, default_value_t = 15)]
        seconds: u64,
    },
    /// WHEP readers of one 4 Mbit/s camera.
    Whep {
        #[arg(long, default_value_t = 50)]
        readers: usize,
        #[arg(long, default_value_t = 15)]
        seconds: u64,
    },
    /// MQTT QoS 1 messages, beside mosquitto.
    Mqtt {
        #[arg(long, default_value_t = 100)]
        connections: usize,
        #[arg(long, default_value_t = 4000)]
        per_second: u64,
        #[arg(long, default_value_t = 15)]
        seconds: u64,
    },
    /// Ready time, idle memory, memory per idle device.
    Idle {
        #[arg(long, default_value_t = 2000)]
        devices: usize,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    match args.what {
        What::Rtsp { readers, seconds } => {
            rtsp::run(&args.kerbside, readers, seconds).await?.print();
        }
        What::Whep { readers, seconds } => {
            whep::run(&args.kerbside, readers, seconds).await?.print();
        }
        What::Mqtt {
            connections,
            per_second,
            seconds,
        } => {
            for r in mqtt::run(&args.kerbside, connections, per_second, seconds).await? {
                println!(
                    "| {} | {} messages | {:.1} µs CPU per message |",
                    r.name, r.messages, r.us_per_message
                );
            }
        }
        What::Idle { devices } => {
            let mut ready: Vec<f64> = Vec::new();
            for _ in 0..5 {
                let (g, _, _) = process::Gateway::start(&args.kerbside, &[])?;
                ready.push(g.ready_after.as_secs_f64() * 1e3);
            }
            ready.sort_by(f64::total_cmp);
            let (rss, kb) = mqtt::idle(&args.kerbside, devices).await?;
            println!("| ready after exec | {:.0} ms (median of 5) |", ready[2]);
            println!(
                "| idle memory, {devices} devices registered | {:.1} MB |",
                rss as f64 / 1e6
            );
            println!("| per idle connected device, of {devices} | {kb:.1} kB |");
        }
    }
    Ok(())
}
