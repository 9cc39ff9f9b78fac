"""The control plane: verbs of the SageMaker API and the reconcilers behind them.

Public: ``ControlPlane``. Speaks no wire protocol; ``api`` maps operations to its verbs.
"""

from __future__ import annotations

from ridgeline_service.control.plane import ControlPlane, Outside

__all__ = ["ControlPlane", "Outside"]
