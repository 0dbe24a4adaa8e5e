"""Generated programs as the host can run them."""

from __future__ import annotations

from typing import Any

from spfemu import Program

__all__ = ["for_this_host"]


def for_this_host(program: Program) -> Program:
    """The program without what engine kernel refuses: sysctls, limits, uncached files."""
    obj = program.to_dict()
    obj["system"] = {"thp": "never"}
    for file in obj.get("files", {}).values():
        file.pop("cached", None)
    obj["tasks"] = [{**task, "ops": _operations(task["ops"])} for task in obj["tasks"]]
    return Program.from_dict(obj)


def _operations(ops: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = []
    for op in ops:
        if op["op"] in ("sysctl", "collapse", "swap_out"):
            continue
        if op["op"] == "repeat":
            op = {**op, "ops": _operations(op["ops"])}
            if not op["ops"]:
                continue
        if "execute" in (op["op"], op.get("access")):
            op = {key: value for key, value in op.items() if key != "mode"}
        kept.append(op)
    return kept
