"""The ``spfemu`` command."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from types import FrameType

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status.

    Source: ours. ``arguments`` default to those of the process.
    """
    is_first = threading.current_thread() is threading.main_thread()
    is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_first and is_usual:
        # An exception in the middle of an import may come out as anything.
        signal.signal(signal.SIGINT, _leave)
    try:
        from spfemu.cli.app import main as run
    finally:
        if is_first and is_usual:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    return run(arguments)


def _leave(number: int, frame: FrameType | None) -> None:
    """Ends the process: nothing was begun yet."""
    os.write(2, b"spfemu: interrupted\n")
    os._exit(130)
