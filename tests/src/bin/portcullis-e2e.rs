//! The `portcullis` command line, built by `cargo test --workspace` together with the tests that run it.

fn main() -> std::process::ExitCode {
    portcullis::main()
}
