//! The `fieldveil` binary: runs the command line and turns its outcome into an exit code.

/// Events are made on one thread and dropped on another: the system's allocator takes a lock for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    fieldveil::cli::main()
}
