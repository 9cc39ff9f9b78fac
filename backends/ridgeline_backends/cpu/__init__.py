"""The CPU backend.

OpenMP's idle threads spin by default. That is only right for a machine that does nothing else: with
one more busy process on the cores, every one of the hundreds of barriers in a step waits for a
thread that has lost its core to a spinning one, and a step takes ten times as long (measured: 1900
against 120 ms). A short spin costs nothing on a quiet machine. The setting is read once, when
torch is first imported, hence here; an operator's own setting wins.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "2000")
