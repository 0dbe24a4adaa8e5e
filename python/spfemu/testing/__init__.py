"""Tools for testing with generated programs: strategies, and the comparison of engines.

``programs`` and ``disjoint_programs`` are hypothesis strategies; ``differential`` runs one program
on several engines and raises AssertionError where they differ, ``against_host`` holds them against
the host's own kernel. ``concurrent_programs`` and ``schedules`` are drawn together, for what only
some interleavings break (``assert_unbroken``). They need hypothesis: install ``spfemu[testing]``.

>>> from hypothesis import given, settings
>>> from spfemu.testing import differential, programs
>>> @settings(max_examples=5, database=None)
... @given(programs(tasks=2, max_ops=20))
... def every_engine_agrees(program):
...     differential(program)
>>> every_engine_agrees()
"""

from spfemu.testing.agreement import assert_same, differences, differential, with_maps
from spfemu.testing.concurrent import assert_unbroken, concurrent_programs, schedules
from spfemu.testing.disjoint import disjoint_programs
from spfemu.testing.hosting import against_host
from spfemu.testing.programs import operations, programs

__all__ = [
    "against_host",
    "assert_same",
    "assert_unbroken",
    "concurrent_programs",
    "differences",
    "differential",
    "disjoint_programs",
    "operations",
    "programs",
    "schedules",
    "with_maps",
]
