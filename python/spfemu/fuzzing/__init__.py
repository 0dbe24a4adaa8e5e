"""Campaigns with generated programs: until time is up, in several processes, on several machines.

``fuzz`` draws sequential programs that every engine must agree on, and programs whose tasks race
together with their schedules, under which no invariant may break. It needs hypothesis: install
``spfemu[testing]``.
"""

from spfemu.fuzzing.campaign import Campaign, fuzz
from spfemu.fuzzing.findings import Found
from spfemu.fuzzing.plan import Plan

__all__ = ["Campaign", "Found", "Plan", "fuzz"]
