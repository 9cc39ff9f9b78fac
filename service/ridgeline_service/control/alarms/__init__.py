"""CloudWatch alarms: their definitions, the rule that gives them a state, and who looks at them."""

from ridgeline_service.control.alarms.verbs import Alarms
from ridgeline_service.control.alarms.watcher import AlarmWatcher

__all__ = ["AlarmWatcher", "Alarms"]
