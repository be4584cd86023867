//! One directory and what is known about it: scan, watch, check out.
//!
//! A [`Folder`] compares a directory with a cache of what is known to stand there ([`Folder::scan`]), and makes the
//! directory agree with a plan ([`Folder::check_out`]). It knows neither the store nor the network: contents go out
//! through a callback and come in through [`ContentSource`], and which timeline stands at which path is the caller's
//! to say. [`release`] packs a directory and puts one in the place of another. The order of steps and what a crash leaves is in `spec/checkout.md`. Linux.

mod another;
mod aside;
mod checkout;
mod content;
mod error;
mod folder;
pub mod fuzzing;
mod hands;
mod journal;
mod path;
mod place;
mod plan;
pub mod release;
mod root;
mod rules;
mod scan;
mod spelling;
mod stat;
mod state;
mod walk;
mod watch;
mod write;

pub use checkout::{CheckOutProgress, CheckOutReport};
pub use content::{Found, FoundContent};
pub use error::{FolderError, SkipReason};
pub use folder::Folder;
pub use hands::StepHook;
pub use path::{NAME_BYTES_MAX, PATH_BYTES_MAX, PathProblem, TEMP_PREFIX, check_path};
pub use place::{PlaceProblem, is_inside, is_mass_change, may_share};
pub use plan::{Binary, CheckOut, ContentSource};
pub use rules::IGNORE_FILE;
pub use scan::{LocalChange, Scan, ScanProgress};
pub use stat::{Placed, Stat};
pub use watch::{Dirty, WatchError, Watcher, watch};
