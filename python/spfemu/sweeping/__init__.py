"""Sweeps: a workload on growing numbers of CPUs, with both handlers, as a tidy table."""

from __future__ import annotations

from spfemu.sweeping.plan import sweep
from spfemu.sweeping.table import Sweep

__all__ = ["Sweep", "sweep"]
