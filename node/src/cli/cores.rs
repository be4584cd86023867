//! A process that ends badly leaves nothing of its memory on a disk: keys stand in it. Spec: gateway §7, GW-60.

use rustix::process::{Resource, Rlimit, setrlimit};

/// Switches core dumps off, for good: the limit cannot be raised again, and a program that the kernel would hand a core to gets
/// none either.
///
/// # Errors
/// When the system does not allow it.
// Spec: GW-60
pub(super) fn switch_off() -> std::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // A limit of nothing does not hold for cores that are piped into a program.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}
