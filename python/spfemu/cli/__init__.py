"""The command line: ``spfemu``, shaped like perf."""

from spfemu.cli.app import main

__all__ = ["main"]
