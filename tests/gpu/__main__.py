"""`make test-gpu` asks first: which device there is, or in one line that there is none."""

import sys

from tests.gpu.device import described, missing

if reason := missing():
    sys.exit(reason)
sys.stdout.write(described() + "\n")
