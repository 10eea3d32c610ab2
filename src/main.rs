//! The binary: everything is in the library.

fn main() -> std::process::ExitCode {
    gemini_batchd::cli::main()
}
