"""The host's own Linux as an oracle: it runs a program with real system calls.

``run`` does that; ``compare`` holds an emulated run against it, ``check`` what a program expects;
``EXCEPTIONS`` names what newer kernels do differently from 5.1.
"""

from __future__ import annotations

from spfemu.oracle.cases import Exempt
from spfemu.oracle.comparing import Comparison, Excused, compare, for_host
from spfemu.oracle.exceptions import EXCEPTIONS, exception
from spfemu.oracle.expectations import check
from spfemu.oracle.host import Host, host
from spfemu.oracle.running import DEFAULT_TIMEOUT_S, run

__all__ = [
    "DEFAULT_TIMEOUT_S",
    "EXCEPTIONS",
    "Comparison",
    "Excused",
    "Exempt",
    "Host",
    "check",
    "compare",
    "exception",
    "for_host",
    "host",
    "run",
]
