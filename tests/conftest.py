"""What all tests share: how hard hypothesis looks."""

from __future__ import annotations

from hypothesis import settings

# Deadlines measure the machine, not the code. `make test` looks at the same examples each time;
# `make test-deep` (--hypothesis-profile=deep) looks for new ones.
settings.register_profile("quick", max_examples=50, deadline=None, derandomize=True)
settings.register_profile("deep", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile("quick")
