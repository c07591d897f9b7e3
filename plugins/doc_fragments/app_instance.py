# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules say that run an application's release."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of module_utils/app_instance.py."""

    DOCUMENTATION = r"""
options:
  root:
    description: The application's folder, such as C(/srv/guestbook).
    type: path
    required: true
  health_path:
    description: Path of the health check.
    type: str
    default: /healthz
  health_release:
    description: Whether the answer must contain the release's id.
    type: bool
    default: true
  timeout:
    description: Seconds that a release is given to answer.
    type: int
    default: 30
  retry_void:
    description: Run a release although it is marked void; a success takes the mark away.
    type: bool
    default: false
  reason:
    description: Why, for the record.
    type: str
    default: ""
"""
