"""Leaves a line for each migration; fails when it is told to."""

from __future__ import annotations

import os
import sys

from probe import BROKEN

print(f"migrating to {os.environ['RELEASE']} with a secret of {len(os.environ['TOKEN'])} characters", file=sys.stderr)
if BROKEN == "migration":
    sys.exit("broken on purpose while it migrates")
