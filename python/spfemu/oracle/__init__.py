"""The host's own Linux as an oracle: it runs a program with real system calls.

``run`` does that; ``compare`` holds an emulated run against it; ``EXCEPTIONS`` names what newer
kernels do differently from 5.1.
"""

from __future__ import annotations

from spfemu.oracle.host import Host, host
from spfemu.oracle.running import DEFAULT_TIMEOUT_S, run

__all__ = ["DEFAULT_TIMEOUT_S", "Host", "host", "run"]
