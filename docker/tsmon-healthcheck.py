"""HEALTHCHECK of tsmon's image: exit code 0 when /healthz says 200. Asks where TSMON_LISTEN says."""

import os
import sys
import urllib.request

ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 (asked, not listened on)

host, _, port = (os.environ.get("TSMON_LISTEN") or ":8000").rpartition(":")
try:
    with urllib.request.urlopen(f"http://{ANY.get(host, host)}:{port}/healthz", timeout=4):
        pass
except OSError as error:
    sys.exit(f"tsmon does not answer as it should: {error}")
