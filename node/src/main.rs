//! The `sealtide` binary.

/// What a large sync took goes back to the system within seconds.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    // Without it a node that rests gives nothing back, and that is all that it does without it.
    if let Err(error) = tikv_jemalloc_ctl::background_thread::write(true) {
        eprintln!("sealtide: memory is not given back while the node rests: {error}");
    }
    sealtide_node::cli::main()
}
