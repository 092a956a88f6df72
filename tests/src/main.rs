//! Arguments → one of: fleet, platform, demo, grid.

use clap::{Parser, Subcommand};
use kerbside_sim::{city, demo, fleet, platform};

#[derive(Parser)]
#[command(
    name = "kerbside-sim",
    version,
    about = "A fleet, a command platform and a demonstration for Kerbside"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Play a fleet of body cameras, drones, vehicles and radios against a gateway.
    Fleet(fleet::FleetArgs),
    /// Play a command platform: receive CloudEvents, list them, misbehave on request.
    Platform(platform::PlatformArgs),
    /// Start a gateway with a configuration, a platform and a fleet, and stop them together.
    Demo(demo::DemoArgs),
    /// Print the grid of the demonstration's city as GeoJSON.
    Grid,
}

fn main() -> std::process::ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| "info,rtc=error".into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .init();
    let cli = Cli::parse();
    let done = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| {
            let done = runtime.block_on(async {
                match cli.command {
                    Command::Fleet(args) => fleet::run(args).await,
                    Command::Platform(args) => platform::run(args).await,
                    Command::Demo(args) => demo::run(args).await,
                    Command::Grid => {
                        print!("{}", city::geojson());
                        Ok(())
                    }
                }
            });
            runtime.shutdown_timeout(std::time::Duration::from_secs(2));
            done
        });
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("kerbside-sim: {fault:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
