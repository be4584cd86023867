//! The words of `gateway …`: every setting of its section is an option too.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `gateway`
#[derive(Debug, Subcommand)]
pub(crate) enum GatewayCommand {
    /// Run the gateway in the foreground, without links or folders
    Run(GatewayArgs),
    /// Make a bearer token: it is printed once, and its digest added to the file of bearers
    Bearer {
        /// Who has it
        name: String,
        /// What they may do
        #[arg(long, default_value = "reader")]
        role: GatewayRoleArg,
        /// The file [default: HOME/bearers]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Let somebody sign in from a browser with a passphrase, which is asked for or read from standard input
    Passphrase {
        /// Who
        name: String,
        /// What they may do
        #[arg(long, default_value = "reader")]
        role: GatewayRoleArg,
        /// The file [default: HOME/bearers]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Print a link to the dashboard, with a code that signs a browser of this machine in as admin: good once, for five minutes,
    /// while the node or the gateway runs
    Code,
}

/// A role at the gateway as a word.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum GatewayRoleArg {
    /// May read
    Reader,
    /// May also bump
    Bumper,
    /// May also change keys
    Admin,
}

/// `gateway run`
#[derive(Debug, Args)]
pub(crate) struct GatewayArgs {
    /// Where it listens, on this machine; port 0 takes a free one [default: 127.0.0.1:7480 or the next free port]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// A proxy whose forwarding headers count; may be given again
    #[arg(long, value_name = "CIDR")]
    pub(crate) trusted_proxy: Vec<String>,
    /// A further name that is ours; may be given again
    #[arg(long, value_name = "HOST")]
    pub(crate) allowed_host: Vec<String>,
    /// An origin whose pages may connect; may be given again
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) allowed_origin: Vec<String>,
    /// Send every message back, for conformance suites
    #[arg(long)]
    pub(crate) echo: bool,
    #[command(flatten)]
    pub(crate) settings: GatewayOptions,
}

/// Every setting of the section `gateway` as an option with dashes.
#[derive(Debug)]
pub(crate) struct GatewayOptions(pub(crate) Vec<(&'static str, String)>);

/// Settings with an option of their own, given once for each entry.
const LISTS: [&str; 2] = ["allowed_hosts", "allowed_origins"];

impl GatewayOptions {
    fn add(command: clap::Command) -> clap::Command {
        let settings = crate::config::gateway_options().filter(|setting| !LISTS.contains(&setting.key));
        settings.fold(command, |command, setting| {
            let option = clap::Arg::new(setting.key).long(setting.key.replace('_', "-")).help(setting.about);
            command.arg(match setting.default {
                // A flag without a value says yes.
                "false" => {
                    option.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("true|false")
                }
                _ => option.value_name("VALUE"),
            })
        })
    }
}

impl Args for GatewayOptions {
    fn augment_args(command: clap::Command) -> clap::Command {
        Self::add(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::add(command)
    }
}

impl clap::FromArgMatches for GatewayOptions {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let given = |setting: &'static crate::config::Setting| {
            let value = matches.try_get_one::<String>(setting.key).ok().flatten()?;
            Some((setting.key, value.clone()))
        };
        Ok(Self(crate::config::gateway_options().filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
