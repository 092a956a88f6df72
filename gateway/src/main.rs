//! The program `kerbside`; everything is in the library.

fn main() -> std::process::ExitCode {
    kerbside::cli::main()
}
