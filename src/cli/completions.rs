//! `signalbox completions`: prints what lets a shell complete commands and options.

use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;

use super::PROGRAM;

/// Places where each shell looks for completions.
pub(super) const EXAMPLES: &str = "\
Put it where the shell looks for it, and open a new shell:
  signalbox completions bash > ~/.local/share/bash-completion/completions/signalbox
  signalbox completions zsh > ~/.zfunc/_signalbox
  signalbox completions fish > ~/.config/fish/completions/signalbox.fish

zsh looks in ~/.zfunc if ~/.zshrc has: fpath+=~/.zfunc; autoload -Uz compinit; compinit";

/// Holds the arguments of `signalbox completions`.
#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// The shell that completes.
    shell: Shell,
}

/// Prints the completions of a shell.
pub(super) fn run(args: &CompletionsArgs, command: Command) -> ExitCode {
    super::print(completions(args.shell, command))
}

fn completions(shell: Shell, mut command: Command) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, PROGRAM, &mut script);
    script
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn completions_know_every_command_and_option() {
        let mut command = Cli::command();
        command.build();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(completions(shell, Cli::command())).unwrap();
            for command in command.get_subcommands() {
                assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
                for option in command.get_arguments().filter_map(clap::Arg::get_long) {
                    assert!(script.contains(option), "{shell}: --{option}");
                }
            }
        }
    }
}
