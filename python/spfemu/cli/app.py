"""The ``spfemu`` command: its subcommands, and the exit statuses.

0 fine; 1 a finding (a check that differs, an invariant that broke); 2 bad usage or bad input, with
one line on standard error; 130 interrupted; 141 whoever read the output has gone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from spfemu.cli import (
    catalogue,
    explain,
    explore,
    fuzz,
    importing,
    lists,
    reproduce,
    run,
    stat,
    sweep,
)
from spfemu.cli.output import error_line
from spfemu.errors import SpfemuError
from spfemu.program.values import shown

__all__ = ["app", "main"]

INTERRUPTED: Final = 130
BAD_INPUT: Final = 2
READER_GONE: Final = 141
"""What a shell says of a program that SIGPIPE ended."""

_COMPLETING: Final = "_SPFEMU_COMPLETE"
_USAGE_ERROR: Final[Any] = typer.BadParameter.__base__  # of whichever click typer brings

app = typer.Typer(
    name="spfemu",
    help="Linux's page-fault path in user space: the classic and the speculative handler.",
    epilog="Example: spfemu stat -- ebizzy -mTt 8 -S 0.2",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

for _module in (stat, run, importing, explore, explain, fuzz, sweep, reproduce, lists, catalogue):
    _module.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(version_line())
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Linux's page-fault path in user space: the classic and the speculative handler."""


def version_line() -> str:
    """Returns the version and how the core was built. Source: the core's build_info."""
    from spfemu import _core

    info = _core.build_info()
    return f"spfemu {info['version']} ({info['profile']}, {info['target']}, {info['rustc']})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status.

    Source: ours. ``arguments`` default to those of the process; none at all ask for help. Every
    error is one line on standard error.
    """
    if sys.stdout is None:
        error_line("standard output is closed")
        return BAD_INPUT
    args = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(args or ["--help"])
    except _USAGE_ERROR as error:
        error_line(_usage_message(error))
        return BAD_INPUT
    except SpfemuError as error:
        error_line(str(error))
        return BAD_INPUT
    except MemoryError:
        error_line("not enough memory")
        return BAD_INPUT
    except ImportError as error:
        if error.name != "spfemu" and "_core" not in str(error):
            raise
        error_line("the compiled core is missing; install the package (in a clone: make build)")
        return BAD_INPUT
    except (KeyboardInterrupt, typer.Abort):
        error_line("interrupted")
        return INTERRUPTED
    except OSError as error:
        _drop_output()
        if error.errno == errno.EPIPE:  # the reader has gone, as `| head` does
            return READER_GONE
        error_line(f"{error.filename or 'the output cannot be written'}: {error.strerror}")
        return BAD_INPUT


def _run(args: list[str]) -> int:
    command: Any = typer.main.get_command(app)
    try:
        status = command.main(args=args, prog_name="spfemu", standalone_mode=False)
    except SystemExit as left:
        if left.code != 1 or _COMPLETING in os.environ:
            raise  # the shell's completion
        # How typer leaves when the reader has gone.
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None
    sys.stdout.flush()
    if status == INTERRUPTED:  # typer has turned the interrupt into a status
        error_line("interrupted")
    return int(status or 0)


def _drop_output() -> None:
    """What is left in the buffer has nowhere to go, and Python would try once more at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage_message(error: Any) -> str:
    """Returns a usage error in one line; for an unknown option it names those there are."""
    message = str(error.format_message()).rstrip(".")
    context = error.ctx
    if context is None:
        return message
    cause = error.__cause__
    if cause is not None and hasattr(cause, "errors") and error.param is not None:
        # What the number has to be comes from the option, not from the checker's English.
        option = "/".join(error.param.opts)
        low = getattr(error.param, "min", None)
        allowed = "a number" if low is None else f"a whole number, {low} and more"
        message = f"option {option}: value {shown(cause.errors()[0]['input'])} (allowed: {allowed})"
    name = getattr(error, "option_name", None)
    if name is not None and "No such option" in message:
        options = [option for param in context.command.params for option in param.opts]
        allowed = ", ".join(option for option in options if option.startswith("-"))
        message = f"no such option: {name} (allowed: {allowed})"
    elif "No such command" in message:
        allowed = ", ".join(context.command.list_commands(context))
        message = f"{message} (allowed: {allowed})"
    return f"{message}; see '{context.command_path} --help'"
