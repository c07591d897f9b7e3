# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all modules say that talk to every database node."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of module_utils/mysql_arguments.py."""

    DOCUMENTATION = r"""
options:
  nodes:
    description: All servers of the tier, also those that are down.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name of the host in the inventory., type: str, required: true}
      address: {description: Address that the other nodes use., type: str, required: true}
      port: {description: Port of the server., type: int, default: 3306}
  me: {description: "Which of O(nodes) this host is; its server is entered over the socket.", type: str, required: true}
  primary:
    description: The inventory's first primary; counts only while no node holds data.
    type: str
    default: ""
  bootstrap:
    description: The operator's word that this node may start an empty tier although others do not answer.
    type: str
    default: ""
  user: {description: Account by which the other servers are entered., type: str, required: true}
  password: {description: Password of O(user)., type: str, required: true}
  ca:
    description: File on this host with the authority of the servers' certificates.
    type: path
    required: true
  unix_socket:
    description: Socket of this host's server, entered as root.
    type: path
    default: /run/mysqld/mysqld.sock
requirements: [PyMySQL]
"""

    REPLICATION = r"""
options:
  replication_user: {description: Account that replicas use., type: str, required: true}
  replication_password: {description: Password of O(replication_user)., type: str, required: true}
  copy_port:
    description: On MariaDB, the port where a node asks another one for a copy of its data.
    type: int
    default: 9201
  certificate:
    description: File on this host with the certificate that it shows there.
    type: path
    default: /etc/mysql/webstack/host.pem
  key:
    description: File with the key of O(certificate).
    type: path
    default: /etc/mysql/webstack/host.pem.key
"""
