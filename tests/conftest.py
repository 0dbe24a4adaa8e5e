"""What all tests share: how hard hypothesis looks."""

from __future__ import annotations

import signal

from hypothesis import settings

# A run in the background ignores SIGINT, and so would every child that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Deadlines measure the machine, not the code. `make test` looks at the same examples each time;
# `make test-deep` (--hypothesis-profile=deep) looks for new ones.
settings.register_profile("quick", max_examples=50, deadline=None, derandomize=True)
settings.register_profile("deep", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile("quick")
