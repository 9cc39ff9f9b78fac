"""The supervisor as a process of its own: what ``ridgeline up --detach`` starts.

Reports to its parent on the file descriptor ``--report-fd``: one JSON line, either the state of
the service once it is ready or the error that kept it from getting there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from ridgeline.errors import RidgelineError
from ridgeline_service.paths import DataDir
from ridgeline_service.supervisor.supervisor import Supervisor


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--report-fd", type=int, required=True)
    options = parser.parse_args()

    def log(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    supervisor = Supervisor(DataDir(Path(options.data_dir)), options.host, options.port, log=log)
    with os.fdopen(options.report_fd, "w") as report:
        try:
            state = supervisor.start()
        except RidgelineError as error:
            json.dump({"code": error.code, "message": error.message, "hint": error.hint}, report)
            return 1
        json.dump({"state": asdict(state)}, report)
    supervisor.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
