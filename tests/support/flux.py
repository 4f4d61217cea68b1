"""The Flux analyser."""

import json
import os
import shutil
import subprocess

LSP = os.environ.get("TSMON_TEST_FLUX_LSP", "")


_CHECK = """
const { Flux } = require(process.argv[1] + "/node_modules/@influxdata/flux-lsp-node");
const texts = require("fs").readFileSync(0, "utf8").split("\\n").filter(Boolean).map(JSON.parse);
console.log(JSON.stringify(texts.map((text) => new Flux(text).is_valid())));
"""


def valid(texts: list[str]) -> list[bool]:
    """Whether the Flux analyser finds each text right in syntax, names and types."""
    run = subprocess.run(
        [shutil.which("node") or "node", "-e", _CHECK, LSP],
        input="\n".join(json.dumps(text) for text in texts),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found: list[bool] = json.loads(run.stdout)
    return found
