//! The words of `release`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

/// `release`
#[derive(Debug, Subcommand)]
pub(crate) enum ReleaseCommand {
    /// Raise the version of an entity and of all that is linked below it
    Bump {
        /// What to raise
        #[arg(default_value = "patch")]
        scope: ScopeArg,
        /// Which entity [default: global:main]
        #[arg(long, value_name = "ID", conflicts_with = "all")]
        entity: Option<String>,
        /// Only the entity, not what is linked below it
        #[arg(long)]
        no_cascade: bool,
        /// Every entity of the registry
        #[arg(long)]
        all: bool,
        /// Only tell what it would come to
        #[arg(long)]
        dry_run: bool,
        /// Only if the registry is at this revision
        #[arg(long, value_name = "REVISION")]
        expect: Option<u64>,
        /// Let at least this version sign
        #[arg(long, value_name = "VERSION")]
        key_version: Option<String>,
        /// How it is signed: hmac, or ed25519, which anybody can verify
        #[arg(long, conflicts_with = "tree")]
        crypto: Option<CryptoArg>,
        /// Change the places in this source tree too that the registry names
        #[arg(long, value_name = "DIR")]
        tree: Option<PathBuf>,
        /// Really change the files; without it the changes are shown, and nothing is written
        #[arg(long, requires = "tree")]
        confirm: bool,
    },
    /// The version registry that several nodes have
    #[command(subcommand)]
    Registry(RegistryCommand),
    /// Ship a directory: a signed bundle in a channel, pushed to whoever follows
    Publish {
        /// The app, for instance kiosk
        app: String,
        /// What is shipped: every file below
        dir: PathBuf,
        /// The channel
        #[arg(long, value_name = "CHANNEL", default_value = "stable")]
        channel: String,
        /// Its version [default: what the version registry says of global:main]
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
        /// Versions below this one count as yanked
        #[arg(long, value_name = "VERSION")]
        minimum_version: Option<String>,
        /// From then on it is served no more, for instance 2027-11-28T12:00:00Z
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        /// Ship it although the channel has a newer version; everybody who follows goes back to it
        #[arg(long)]
        allow_downgrade: bool,
        /// Write a copy of the bundle to this file, for instance kiosk-2.4.0.stb
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Write what others need to verify it: the trust file
        #[arg(long, value_name = "FILE")]
        trust_out: Option<PathBuf>,
    },
    /// Put a release of one channel into another
    Promote {
        /// The app
        app: String,
        /// Which release [default: the newest]
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
        /// Out of this channel
        #[arg(long, value_name = "CHANNEL")]
        from: String,
        /// Into this one
        #[arg(long, value_name = "CHANNEL")]
        to: String,
        /// Promote it although that channel has a newer version; everybody who follows goes back to it
        #[arg(long)]
        allow_downgrade: bool,
    },
    /// Channels and their newest releases, and what is installed here
    List,
    /// The releases of an app
    Show {
        /// The app
        app: String,
        /// Only this channel
        #[arg(long, value_name = "CHANNEL")]
        channel: Option<String>,
        /// The files of this version
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
    },
    /// Put the newest release of a channel into a directory, whole or not at all
    Install {
        /// The app; or a bundle, a file that ends with .stb
        app: String,
        /// The channel
        #[arg(long, value_name = "CHANNEL", default_value = "stable")]
        channel: String,
        /// Another version than the newest; needs --allow-downgrade
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
        /// The directory; what stands there becomes .NAME.previous beside it
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// The publisher's trust file [default: what this node trusts already]
        #[arg(long, value_name = "FILE")]
        trust: Option<PathBuf>,
        /// Go on, and install what is published later
        #[arg(long)]
        follow: bool,
        /// Take an older or a yanked release; the audit says so
        #[arg(long)]
        allow_downgrade: bool,
    },
    /// Check a bundle, with no network: signatures, keys, every file
    Verify {
        /// The bundle
        file: PathBuf,
        /// The publisher's trust file [default: what this node trusts already]
        #[arg(long, value_name = "FILE")]
        trust: Option<PathBuf>,
    },
    /// Move old bundles to the archive, a directory or the bucket of setting archive.url; they are served from there
    Archive {
        /// Only this app
        app: Option<String>,
        /// Only bundles of this age and older
        #[arg(long, value_name = "TIME", default_value = "30d")]
        older: String,
        /// Where they go
        #[arg(long, value_name = "TIER", default_value = "infrequent")]
        tier: TierArg,
    },
    /// Tell everybody not to install a release
    Yank {
        /// The app
        app: String,
        /// Its version
        version: String,
        /// In which channel
        #[arg(long, value_name = "CHANNEL", default_value = "stable")]
        channel: String,
    },
    /// Take back a bump of a source tree: its files and versions are as they were
    Revert {
        /// The transaction that the bump named
        id: String,
        /// The source tree
        #[arg(long, value_name = "DIR", default_value = ".")]
        tree: PathBuf,
    },
}

/// A tier of bundles.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum TierArg {
    /// Read seldom, kept for long
    Infrequent,
}

/// Part of a version.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ScopeArg {
    /// The first number
    Major,
    /// The second number
    Minor,
    /// The third number
    Patch,
}

/// How a bump is signed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum CryptoArg {
    /// HMAC-SHA256
    Hmac,
    /// Ed25519
    Ed25519,
}

/// `release registry …`
#[derive(Debug, Subcommand)]
pub(crate) enum RegistryCommand {
    /// Who writes the registry, and at which revision it is
    Show,
    /// Make a space for the registry of this home, in which other nodes read it and pass bumps on
    Share,
    /// Show the registry of this space at the own door, and pass bumps on to its writer
    Follow {
        /// The space that was joined
        space: String,
    },
    /// Neither share nor follow one any more
    Leave,
    /// Let another node that follows it write the registry from here on
    HandOver {
        /// The node, by name or id
        node: String,
    },
}
