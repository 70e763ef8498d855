//! `signalbox man`: prints the manual page, in troff.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Command;
use clap_mangen::Man;

use super::PROGRAM;

/// Ways to read the page, and to keep it.
pub(super) const EXAMPLES: &str = "\
Read it, or put it where `man signalbox` finds it:
  signalbox man | man -l -
  signalbox man > ~/.local/share/man/man1/signalbox.1";

/// Prints the page.
pub(super) fn run(command: Command) -> ExitCode {
    // Writing to memory does not fail.
    super::print(page(command).unwrap_or_default())
}

/// Makes one page of all commands, each a section of its own: nobody looks for a page each.
fn page(command: Command) -> io::Result<String> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let man = Man::new(command.clone()).manual("Signalbox");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    page.write_all(examples(&man)?.as_bytes())?;
    man.render_options_section(&mut page)?;
    for command in command.get_subcommands() {
        sections(command, &mut page)?;
    }
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// Makes the section of examples, whose lines stay as they are.
fn examples(man: &Man) -> io::Result<String> {
    let mut section = Vec::new();
    man.render_extra_section(&mut section)?;
    let section = String::from_utf8_lossy(&section).replace(".SH EXTRA", ".SH EXAMPLES\n.nf");
    Ok(format!("{}\n.fi\n", section.trim_end()))
}

/// Adds the section of a command, and of those below it.
fn sections(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    if command.has_subcommands() {
        return command.get_subcommands().try_for_each(|command| sections(command, page));
    }
    let man = Man::new(command.clone());
    let mut section = Vec::new();
    man.render_synopsis_section(&mut section)?;
    man.render_description_section(&mut section)?;
    man.render_options_section(&mut section)?;
    section.write_all(examples(&man)?.as_bytes())?;
    writeln!(page, ".SH \"{}\"", command.get_bin_name().unwrap_or(PROGRAM))?;
    // Each of its parts is one level below it.
    let parts =
        [("SYNOPSIS", "Synopsis"), ("DESCRIPTION", "Description"), ("OPTIONS", "Options"), ("EXAMPLES", "Examples")];
    let section = String::from_utf8_lossy(&section).replace(".SH ", ".SS ");
    let section =
        parts.iter().fold(section, |text, (loud, calm)| text.replace(&format!(".SS {loud}"), &format!(".SS {calm}")));
    page.write_all(section.as_bytes())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn page_has_a_section_for_every_command() {
        let page = page(Cli::command()).unwrap();
        assert!(page.starts_with(".ie \\n(.g .ds") || page.contains(".TH signalbox 1"), "{page}");
        for command in Cli::command().get_subcommands().filter(|command| !command.has_subcommands()) {
            assert!(page.contains(&format!(".SH \"signalbox {}\"", command.get_name())), "{}", command.get_name());
        }
        assert!(page.contains("\\-\\-config") && page.contains(".SS Examples") && !page.contains("EXTRA"));
    }
}
