"""The command line: it parses, calls, and prints. Nothing heavy is imported before a command is
chosen."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Sequence

from ptune.base import terminal
from ptune.cli import torchrun
from ptune.cli.commands import COMMANDS
from ptune.errors import PtuneError, nearest

USAGE = """usage: ptune COMMAND [OPTIONS]

Prompt learning on frozen language models.

  probe      find out what a frozen LM knows: manual prompts and P-tuning side by side
  compare    methods side by side on tasks with labels: few shots, several seeds, one table
  sweep      tasks trained with many settings, by several processes; one table
  search     let a program look for prompts and label words, by train and dev rows
  check      look at files of rows: what they hold, what is odd, and the YAML that reads them
  new        make a task's YAML file from a table of texts and labels
  train      train the prompt of a task described by a YAML file, or of a table of texts and labels
  methods    list the methods, and what each trains
  evaluate   score a saved prompt on rows with right answers
  predict    answer rows with a saved prompt: rows in, rows out
  generate   let the LM write with a saved prompt: rows in, rows out
  distil     read documents once: a short prefix each, with which the LM answers as with the text
  ask        ask documents that were distilled
  serve      answer requests over HTTP with saved prompts, mixed in batches; a page to try them
  report     put the runs of ptune train side by side, in a table and a page
  export     write a saved prompt in PEFT's or Google's form
  import     make a prompt of PEFT's adapter folder or Google's .npy file
  push       put a saved prompt on the model hub, with a card
  pull       fetch prompts from the model hub
  doctor     what is installed here, and what an LM can do with prompts
  inspect    draw a template as the LM sees it, or show what a prompt has learned
  pretrain   train a small LM from text files
  bench      how fast training, scoring and writing are beside PEFT (in ptune's repository)

`ptune COMMAND --help` explains a command's options. The first thing to try: ptune probe"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; exits with 2 and a message where the user can mend the fault, with 130 after
    Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _open_streams()
    torchrun.fall_silent()
    try:
        _command(*arguments)
        sys.stdout.flush()
    except PtuneError as error:
        terminal.warn(f"ptune: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nptune: stopped.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        _drop_output()  # what reads us has had enough, as `head` has
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _drop_output()
        named = f"{error.filename}: " if error.filename else ""
        terminal.warn(f"ptune: {named}{error.strerror or error}.")
        sys.exit(2)
    except UnicodeEncodeError as error:
        character = error.object[error.start : error.end].encode("unicode_escape").decode()
        terminal.warn(
            f"ptune: A name or a text holds {character}, half of a character, which can be "
            "written nowhere: take it out."
        )
        sys.exit(2)
    except ValueError as error:
        if "embedded null" not in str(error):
            raise
        terminal.warn(
            "ptune: The name of a file holds a NUL character, which no file's name can have."
        )
        sys.exit(2)


def _open_streams() -> None:
    """Standard streams that take whatever is written, closed ones and those of another encoding
    too."""
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """What is still to be written to standard output goes nowhere, so that the end of Python does
    not fail over it."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _command(name: str = "--help", *rest: str) -> None:
    if name in ("-h", "--help", "help"):
        print(USAGE)
    elif name in ("--version", "version"):
        from importlib.metadata import version

        print(f"ptune {version('ptune')}")
    elif name not in COMMANDS:
        raise PtuneError(f"There is no command {name!r}. {nearest(name, COMMANDS)}")
    else:
        torchrun.check_command(name)
        COMMANDS[name](rest)
