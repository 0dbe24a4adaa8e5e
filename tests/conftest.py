"""What all tests share: how hard hypothesis looks."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# A run in the background ignores SIGINT, and so would every child that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Deadlines measure the machine, not the code; so does the check for slow generation, whose seconds
# others may have the CPU for. `make test` looks at the same examples each time; `make test-deep`
# (--hypothesis-profile=deep) looks for new ones.
untimed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", untimed, max_examples=50, derandomize=True)
settings.register_profile("deep", untimed, max_examples=2000, print_blob=True)
settings.load_profile("quick")
