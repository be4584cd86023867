//! What the system lets this process have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets this process have as many files open as the system allows anybody: a large store has a file for each 256 MiB, and a relay a socket for
/// each node. Shells give a thousand.
pub(super) fn open_many_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "the number of open files stays what it is");
    }
}

/// Switches core dumps off, for good, so that a process that ends badly leaves nothing of its memory on a disk: keys stand in it. The limit cannot be raised again, and a program that the kernel would hand a core to gets
/// none either.
///
/// # Errors
/// When the system does not allow it.
// Spec: gateway §7, GW-60
pub(super) fn switch_off_cores() -> std::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // A limit of nothing does not hold for cores that are piped into a program.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}
