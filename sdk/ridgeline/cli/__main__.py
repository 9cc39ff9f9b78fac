"""Where the console script begins: nothing is imported before Ctrl-C is provided for."""

from __future__ import annotations

import sys

_INTERRUPTED = 130


def main() -> None:
    """Run the command line; interrupted while it still imports, it ends as quietly as later."""
    try:
        from ridgeline.cli import app  # inner: this is what takes long

        app.main()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
