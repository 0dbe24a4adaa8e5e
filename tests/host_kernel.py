"""Whether the host's kernel can be asked here."""

from __future__ import annotations

from typing import Final

import pytest

import spfemu

__all__ = ["REFUSAL", "needs_host"]


def _refusal() -> str:
    try:
        spfemu.run(spfemu.Program.loads(_PROGRAM), engine="kernel")
    except spfemu.EngineError as error:
        return str(error)
    return ""


_PROGRAM: Final = """{"format": "spfemu-program/1", "tasks": [{"ops": [
    {"op": "mmap", "length": 4096, "id": "p"}, {"op": "read", "addr": "p"}]}]}"""

REFUSAL: Final = _refusal()
"""Why it cannot, or ""."""

needs_host = pytest.mark.skipif(bool(REFUSAL), reason=REFUSAL)
