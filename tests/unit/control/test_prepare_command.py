"""The command that downloads and converts a model, followed."""

from __future__ import annotations

import pytest
from staging_bench import never, silent

from ridgeline_service.control.staging import StagingCancelled, StagingFailed, prepare
from ridgeline_service.control.staging.prepare import Prepare
from ridgeline_service.paths import DataDir


class TestPrepareCommand:
    def test_a_seeded_model_is_made_by_the_real_command(self, tmp_path):
        stages = []
        files = Prepare(DataDir(tmp_path), {}).run(
            "tiny-llama-seeded",
            tmp_path / "out",
            lambda stage, done, total: stages.append(stage),
            never,
        )
        names = {file.name for file in files}
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
        assert stages[0] == "download"

    def test_an_unknown_card_fails_with_the_commands_words(self, tmp_path):
        with pytest.raises(StagingFailed, match="there is no model 'ghost'") as caught:
            Prepare(DataDir(tmp_path), {}).run("ghost", tmp_path / "out", silent, never)
        assert not caught.value.reason.retried

    def test_cancelling_ends_it(self, tmp_path):
        with pytest.raises(StagingCancelled):
            Prepare(DataDir(tmp_path), {}).run(
                "tiny-llama-seeded", tmp_path / "out", silent, lambda: True
            )

    def test_a_command_that_says_much_is_not_held_up(self, tmp_path, monkeypatch):
        """More than a pipe takes, of which nobody reads anything before the end."""
        says = "import json, sys; sys.stderr.write('warning ' * 100_000); "
        answer = "print(json.dumps({'result': {'files': []}}))"
        monkeypatch.setattr(prepare, "_COMMAND", ("-c", says + answer))
        assert Prepare(DataDir(tmp_path), {}).run("any", tmp_path / "out", silent, never) == []
        monkeypatch.setattr(prepare, "_COMMAND", ("-c", says + "sys.exit('the last word')"))
        with pytest.raises(StagingFailed, match="the last word"):
            Prepare(DataDir(tmp_path), {}).run("any", tmp_path / "out", silent, never)
