"""From the start of a replica's process to its first token, beside the bare import it cannot avoid.

    .venv/bin/python tests/bench/cold_start.py

Each kind is started twice, with an empty cache at first. Stages are the replica's own account.
Writes .cache/bench/cold_start.json, which report.py reads.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from peers.base import REPOSITORY, Model
from peers.ridgeline import BF16, HEADERS, INT8, Ridgeline
from prepared import prepared_model

RESULTS = REPOSITORY / ".cache" / "bench"
IMPORTS = """
import ridgeline_service.serving.llm.__main__
import ridgeline_service.serving.llm.loading
from ridgeline_backends.registry import get_backend
get_backend("cpu").probe()
"""


def main() -> None:
    model = prepared_model("smollm2-135m-instruct")
    bare = statistics.median(_bare_import() for _ in range(3))
    with tempfile.TemporaryDirectory(prefix="ridgeline-cold-") as name:
        os.environ["RIDGELINE_CACHE"] = name
        starts = [
            _start(f"{kind.name}, {order}", kind, Model(model, Path(name)))
            for kind in (BF16, INT8)
            for order in ("first", "second")
        ]
    report = {"bare_import_s": bare, "starts": starts}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "cold_start.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))


def _bare_import() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return round(time.perf_counter() - started, 3)


def _start(name: str, kind: Ridgeline, model: Model) -> Mapping[str, object]:
    started = time.perf_counter()
    with kind.start(model) as replica:
        base = replica.target.url
        _ask(f"{base}/completions", {"model": "model", "prompt": "Hello", "max_tokens": 1})
        first_token_s = time.perf_counter() - started
        identity = _ask(base.removesuffix("/v1") + "/ridgeline/identity")
    stages = {stage["name"]: stage["seconds"] for stage in identity["stages"]}
    return {"name": name, "first_token_s": round(first_token_s, 3), "stages": stages}


def _ask(url: str, body: Mapping[str, object] | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    headers = {**HEADERS, "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers)) as answer:
        found: dict = json.load(answer)
    return found


if __name__ == "__main__":
    main()
