//! `jetcopy completions` and `jetcopy man`: what shells and `man` know of the commands.
//!
//! Guarantees: both are made from the commands' own definitions, so they never differ from `--help`.

use std::io;
use std::path::PathBuf;

use clap_complete::Shell;

/// Arguments of `jetcopy completions`.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell to complete for.
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Arguments of `jetcopy man`.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Write a page per command to this directory; without it, print the main page.
    #[arg(value_name = "DIRECTORY")]
    pub directory: Option<PathBuf>,
}

/// Writes a completion script to standard output.
pub fn completions(mut command: clap::Command, args: &CompletionsArgs) {
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut io::stdout());
}

/// Writes the manual.
pub fn man(command: clap::Command, args: &ManArgs) -> io::Result<()> {
    match &args.directory {
        Some(directory) => clap_mangen::generate_to(command, directory),
        None => clap_mangen::Man::new(command).render(&mut io::stdout()),
    }
}
