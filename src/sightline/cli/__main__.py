"""`python -m sightline.cli`, the same as `sightline`."""

import sys

from . import main

sys.exit(main())
