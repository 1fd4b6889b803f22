//! How the daemon's memory goes back to the system.
//!
//! Left to itself, glibc takes blocks of up to 32 MiB from its heaps once it has met such: they stay with
//! the process while anything behind them is in use, and grow by being copied. With fixed bounds, each large
//! block is a mapping of its own: it goes back when it is freed, and grows where it is. Giants took a third
//! less memory.
//!
//! glibc takes the bounds from the environment of a program that starts, or by a call that is not safe. So
//! the daemon re-executes itself in its own process. If that fails, it continues as it is.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

const VARIABLE: &str = "GLIBC_TUNABLES";

/// Blocks above 256 KiB are mappings: larger than any that ordinary messages need each time. A heap
/// keeps 4 MiB at its end: what is on the way comes and goes by less. A few heaps do for a few pipelines,
/// however many cores there are.
const TUNABLES: &str =
    "glibc.malloc.mmap_threshold=262144:glibc.malloc.trim_threshold=4194304:glibc.malloc.arena_max=4";

/// Re-executes the program, unless its environment has bounds already. Nothing may have been done before.
pub(super) fn settle() {
    if !cfg!(target_env = "gnu") || std::env::var_os(VARIABLE).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // It returns only where it failed: the program was replaced meanwhile, say.
    let _ = command.args(arguments).env(VARIABLE, TUNABLES).exec();
}
