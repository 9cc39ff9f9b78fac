"""CloudWatch alarms: their definitions, the rule that gives them a state, and who looks at them."""

from ridgeline_service.control.alarms.verbs import Alarms
from ridgeline_service.control.alarms.watcher import WATCHED_EVERY_S, AlarmWatcher

__all__ = ["WATCHED_EVERY_S", "AlarmWatcher", "Alarms"]
