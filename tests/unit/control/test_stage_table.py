"""The stages of a start, as they are timed and written."""

from __future__ import annotations

from ridgeline_service.control.endpoints.stages import StageTable
from ridgeline_service.store.records import Stage


class TestStageTable:
    def test_stages_follow_each_other_with_their_seconds(self):
        now, saved = [100.0], []
        table = StageTable(lambda: now[0], saved.append)
        table.report("download", 0, 10)
        now[0] += 2
        table.report("download", 5, 10)
        now[0] += 1
        table.report("prepare", 0, 0)
        now[0] += 4
        first, second = table.close()
        assert (first.name, first.state, first.seconds) == ("download", "done", 3.0)
        assert (first.progress, first.total) == (5, 10)
        assert (second.name, second.state, second.seconds) == ("prepare", "done", 4.0)

    def test_progress_is_not_written_more_than_twice_a_second(self):
        now, saved = [100.0], []
        table = StageTable(lambda: now[0], saved.append)
        for done in range(1000):
            now[0] += 0.001
            table.report("download", done, 1000)
        assert len(saved) <= 3
        assert all(isinstance(stage, Stage) for stage in saved[-1])
