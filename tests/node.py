"""JavaScript modules run by node, for tests that compare them with torch."""

import json
import subprocess
from typing import Any


def run_node(node: str, text: str, given: Any) -> Any:
    """What a module prints as JSON, with `given` as JSON on its standard input."""
    ran = subprocess.run(
        [node, "--input-type=module", "-e", text],
        input=json.dumps(given), capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)
