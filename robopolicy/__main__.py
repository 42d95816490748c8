"""`python -m robopolicy` is `robopolicy`."""

import sys

from robopolicy.cli.main import main

sys.exit(main())
