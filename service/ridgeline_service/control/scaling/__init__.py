"""Application Auto Scaling of endpoint variants: what is registered, and the scaler that acts."""

from ridgeline_service.control.scaling.scaler import SCALED_EVERY_S, Scaler
from ridgeline_service.control.scaling.scheduled import ScheduledActions
from ridgeline_service.control.scaling.verbs import Scaling

__all__ = ["SCALED_EVERY_S", "Scaler", "Scaling", "ScheduledActions"]
