//! The command line: arguments → one of run, check, device, user.
//!
//! Results go to standard output, faults to standard error with exit code 1; wrong usage is exit code 2.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use kerbside_codecs::telemetry::Datum;
use serde_json::json;

use crate::config::{self, Checks, Config, Reading, Tls};
use crate::picture::{Grid, Rules};
use crate::registry::{self, DeviceKind, Registry, Role};

/// Kerbside: the edge gateway of a joint street-enforcement command.
#[derive(Parser)]
#[command(name = "kerbside", version, arg_required_else_help = true)]
struct Cli {
    /// Directory of the configuration
    #[arg(
        long,
        global = true,
        env = "KERBSIDE_CONFIG",
        default_value = "/etc/kerbside",
        value_name = "DIR"
    )]
    config: PathBuf,
    /// Directory of what the gateway keeps: accounts and events
    #[arg(
        long,
        global = true,
        env = "KERBSIDE_STATE",
        default_value = "/var/lib/kerbside",
        value_name = "DIR"
    )]
    state: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway
    Run,
    /// Read the configuration and tell every fault as file:line: key: reason
    Check,
    /// Devices that may connect
    #[command(subcommand)]
    Device(DeviceCommand),
    /// People and programs that may watch
    #[command(subcommand)]
    User(UserCommand),
}

#[derive(Subcommand)]
enum DeviceCommand {
    /// Register a device and show its password, once
    Add {
        /// Its id and user name: A-Z a-z 0-9 . _ - (1 to 64)
        id: String,
        #[arg(long, value_parser = kind_parser())]
        kind: DeviceKind,
        /// The unit it belongs to
        #[arg(long)]
        unit: Option<String>,
        /// The agency it belongs to, as the city names it
        #[arg(long)]
        agency: Option<String>,
        /// Who bears it, by reference: several devices of one person are one track
        #[arg(long)]
        person: Option<String>,
        /// Datum of positions that do not name their own: wgs84, gcj02, bd09
        #[arg(long, default_value = "wgs84", value_parser = datum_parser())]
        datum: Datum,
        /// Seen only by users with the grant `--restricted`
        #[arg(long)]
        restricted: bool,
        #[command(flatten)]
        form: Form,
    },
    /// Take a device's access away; its sessions end within seconds
    Revoke {
        id: String,
        #[command(flatten)]
        form: Form,
    },
    /// Show the registered devices
    List(Form),
}

#[derive(Subcommand)]
enum UserCommand {
    /// Register a user and show the token, once
    Add {
        /// User name: A-Z a-z 0-9 . _ - (1 to 64)
        name: String,
        /// operator and commander watch and handle events, an auditor only reads, an admin does all
        #[arg(long, value_parser = role_parser())]
        role: Role,
        /// May see restricted devices
        #[arg(long)]
        restricted: bool,
        #[command(flatten)]
        form: Form,
    },
    /// Take a user's access away; the sessions end within seconds
    Revoke {
        name: String,
        #[command(flatten)]
        form: Form,
    },
    /// Show the registered users
    List(Form),
}

#[derive(Args, Clone, Copy)]
struct Form {
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

fn kind_parser() -> impl TypedValueParser<Value = DeviceKind> {
    PossibleValuesParser::new(DeviceKind::ALL.map(DeviceKind::name))
        .try_map(|s| DeviceKind::parse(&s).ok_or("unknown kind"))
}

fn datum_parser() -> impl TypedValueParser<Value = Datum> {
    PossibleValuesParser::new(Datum::ALL.map(Datum::name))
        .try_map(|s| Datum::parse(&s).ok_or("unknown datum"))
}

fn role_parser() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(Role::ALL.map(Role::name))
        .try_map(|s| Role::parse(&s).ok_or("unknown role"))
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        Command::Run => run(&cli),
        Command::Check => check(&cli),
        Command::Device(c) => device(&cli, c),
        Command::User(c) => user(&cli, c),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Told) => ExitCode::FAILURE,
        Err(Failed::Error(e)) => {
            say_error(&format!("kerbside: {e:#}"));
            ExitCode::FAILURE
        }
    }
}

enum Failed {
    /// The faults are already on standard error.
    Told,
    Error(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failed {
    fn from(e: E) -> Self {
        Self::Error(e.into())
    }
}

fn run(cli: &Cli) -> Result<(), Failed> {
    let config = load(cli, Reading::ToRun)?;
    crate::log::init();
    crate::app::run(config, &cli.state)?;
    Ok(())
}

fn check(cli: &Cli) -> Result<(), Failed> {
    let config = load(cli, Reading::ToCheck)?;
    say("ok")?;
    if let Some(Ok(grid)) = config.grid.as_deref().map(Grid::parse) {
        for warning in grid.warnings() {
            say(&format!(
                "warning: {}: {warning}",
                config.grid_file.display()
            ))?;
        }
    }
    if config.tls == Tls::SelfSigned
        && let Some(told) = crate::tls::own(&cli.state)
    {
        let (fingerprint, until) = (&told.fingerprint, told.expires_at());
        say(&format!(
            "self-signed certificate: SHA-256 {fingerprint}, valid until {until}"
        ))?;
    }
    Ok(())
}

fn load(cli: &Cli, reading: Reading) -> Result<Config, Failed> {
    let checks = Checks {
        rule: |rule| match Rules::compile(std::slice::from_ref(rule)) {
            Ok(_) => Ok(()),
            Err(faults) => Err(faults
                .into_iter()
                .map(|f| f.reason)
                .collect::<Vec<_>>()
                .join("; ")),
        },
        grid: |text| {
            let faults = Grid::parse(text).err().unwrap_or_default();
            faults.into_iter().map(|f| (f.feature, f.reason)).collect()
        },
    };
    config::load(&cli.config, &checks, reading).map_err(|faults| {
        for fault in &faults {
            say_error(&fault.to_string());
        }
        Failed::Told
    })
}

fn registry(cli: &Cli) -> Result<Registry, Failed> {
    Ok(Registry::open(&cli.state).with_context(|| {
        format!(
            "the state directory {} cannot be used; name another with --state, or run as the gateway's user",
            cli.state.display()
        )
    })?)
}

fn device(cli: &Cli, command: &DeviceCommand) -> Result<(), Failed> {
    let registry = registry(cli)?;
    match command {
        DeviceCommand::Add {
            id,
            kind,
            unit,
            agency,
            person,
            datum,
            restricted,
            form,
        } => {
            let password = registry.enrol(registry::Device {
                unit: unit.clone(),
                agency: agency.clone(),
                person: person.clone(),
                datum: *datum,
                restricted: *restricted,
                ..registry::Device::new(id, *kind)
            })?;
            if form.json {
                say(&json!({"id": id, "password": password}).to_string())
            } else {
                say(&format!(
                    "id        {id}\npassword  {password}\nThe password is not shown again; revoke and add the device for a new one."
                ))
            }
        }
        DeviceCommand::Revoke { id, form } => {
            registry.revoke_device(id)?;
            said_revoked("id", id, *form)
        }
        DeviceCommand::List(form) => {
            let devices = registry.devices();
            if form.json {
                let list: Vec<_> = devices
                    .iter()
                    .map(|d| json!({"id": d.id, "kind": d.kind.name(), "unit": d.unit, "agency": d.agency,
                        "person": d.person, "datum": d.datum, "restricted": d.restricted}))
                    .collect();
                return say(&serde_json::Value::from(list).to_string());
            }
            for d in devices {
                let unit = d.unit.as_deref().unwrap_or("-");
                say(&format!("{}\t{}\t{unit}", d.id, d.kind.name()))?;
            }
            Ok(())
        }
    }
}

fn user(cli: &Cli, command: &UserCommand) -> Result<(), Failed> {
    let registry = registry(cli)?;
    match command {
        UserCommand::Add {
            name,
            role,
            restricted,
            form,
        } => {
            let token = registry.admit(registry::User {
                sees_restricted: *restricted,
                ..registry::User::new(name, *role)
            })?;
            if form.json {
                say(&json!({"name": name, "token": token}).to_string())
            } else {
                say(&format!(
                    "name   {name}\ntoken  {token}\nThe token is not shown again; revoke and add the user for a new one."
                ))
            }
        }
        UserCommand::Revoke { name, form } => {
            registry.revoke_user(name)?;
            said_revoked("name", name, *form)
        }
        UserCommand::List(form) => {
            let users = registry.users();
            if form.json {
                let list: Vec<_> = users
                    .iter()
                    .map(|u| json!({"name": u.name, "role": u.role.name(), "restricted": u.sees_restricted}))
                    .collect();
                return say(&serde_json::Value::from(list).to_string());
            }
            for u in users {
                say(&format!("{}\t{}", u.name, u.role.name()))?;
            }
            Ok(())
        }
    }
}

fn said_revoked(key: &str, name: &str, form: Form) -> Result<(), Failed> {
    if form.json {
        say(&json!({key: name, "revoked": true}).to_string())
    } else {
        say(&format!("{name} is revoked"))
    }
}

fn say(text: &str) -> Result<(), Failed> {
    writeln!(std::io::stdout().lock(), "{text}").context("standard output")?;
    Ok(())
}

/// To standard error; when nobody reads that, the exit code still tells.
fn say_error(text: &str) {
    writeln!(std::io::stderr().lock(), "{text}").unwrap_or(());
}
