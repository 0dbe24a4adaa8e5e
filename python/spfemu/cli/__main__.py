"""``python -m spfemu.cli`` is the same as ``spfemu``."""

import sys

from spfemu.cli import main

sys.exit(main())
