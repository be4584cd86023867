//! The `sealtide` binary.

fn main() -> std::process::ExitCode {
    sealtide_node::cli::main()
}
