"""Bring the database to what this release needs. Run once per release, before it is switched on; again does nothing."""

from __future__ import annotations

import sys
import time

import pymysql
from database import Book, Endpoint

TABLES = """
CREATE TABLE IF NOT EXISTS entries (
  id         BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  token      VARCHAR(64) CHARACTER SET ascii NOT NULL,
  author     VARCHAR(80) NOT NULL,
  message    VARCHAR(500) NOT NULL,
  served_by  VARCHAR(255) NOT NULL,
  created_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  UNIQUE KEY token (token)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4
"""


def migrate(writer: Endpoint, wait: float = 30) -> str:
    """Make what is missing and return the server's name.

    :param wait: seconds that the primary is given to answer.
    :raises pymysql.err.Error: it did not, or refused.
    """
    deadline = time.monotonic() + wait
    while True:
        try:
            return writer.run(lambda cursor: cursor.execute(TABLES))[1]
        except pymysql.err.OperationalError as error:
            # 2003: nobody listens (yet). Anything else will not mend itself.
            if error.args[0] != 2003 or time.monotonic() > deadline:
                raise
            time.sleep(1)


if __name__ == "__main__":
    try:
        print(f"the table is in place on {migrate(Book().writer)}")
    except pymysql.err.Error as problem:
        sys.exit(f"migrate: {problem}")
