"""What the small programs that are explored completely are made of: a mapping ``p``, its pages."""

from __future__ import annotations

from typing import Any, Final

P: Final = 4096
Op = dict[str, Any]

GO: Final[Op] = {"op": "post", "name": "go"}
ON: Final[Op] = {"op": "await", "name": "go"}
FORK: Final[Op] = {"op": "fork", "child": "c"}


def on(op: str, pages: int = 1, page: int = 0, **keys: Any) -> Op:
    """An operation on pages of ``p``."""
    return {"op": op, "addr": f"p+{page * P}", "length": pages * P, **keys}


def write(value: int, page: int = 0) -> Op:
    return {"op": "write", "addr": f"p+{page * P}", "value": value}


def read(page: int = 0) -> Op:
    return {"op": "read", "addr": f"p+{page * P}"}


def move(pages: int) -> Op:
    """``p`` goes elsewhere, and is ``q`` from then on."""
    return {
        "op": "mremap",
        "addr": "p",
        "old_length": pages * P,
        "new_length": pages * P,
        "flags": ["maymove", "fixed"],
        "new_addr": "0x100000000000",
        "id": "q",
    }
