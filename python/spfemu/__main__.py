"""``python -m spfemu`` is the same as ``spfemu``."""

import sys

from spfemu.cli.app import main

sys.exit(main())
