//! The pages of the dashboard are part of a release build: it is made again when they are. Other builds read them from the
//! checkout when they are asked for.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "this is how a build script speaks with cargo")]

fn main() {
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    println!("cargo::rerun-if-changed={}", if is_release { "../../web/dashboard/dist" } else { "build.rs" });
}
