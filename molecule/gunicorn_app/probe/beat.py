"""A background process for the tests: says once what it is, and stays."""

from __future__ import annotations

import os
import pathlib
import sys
import time

print("beat", os.environ["RELEASE"], pathlib.Path(sys.prefix).parent.name, *sys.argv[1:], flush=True)
while "--once" not in sys.argv:
    time.sleep(5)
