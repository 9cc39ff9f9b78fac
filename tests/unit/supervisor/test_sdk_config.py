"""What AWS's SDKs find in the configuration file that ``ridgeline env`` names."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from ridgeline_service.commands import env
from ridgeline_service.paths import DataDir
from ridgeline_service.processes import ProcessId
from ridgeline_service.settings import Settings
from ridgeline_service.supervisor.state import ServiceState


def test_all_that_takes_a_role_finds_it(tmp_path: Path) -> None:
    """Where it is not there the SDKs ask IAM, or refuse to start the job."""
    directory = DataDir(tmp_path)
    key = {"access_key_id": "a", "secret_access_key": "s", "api_key": "k"}
    directory.root_key.write_text(json.dumps(key))
    settings = Settings()
    url = "http://127.0.0.1:1"
    state = ServiceState(ProcessId(1, 1), "127.0.0.1", 1, url, url, url)
    variables = env._variables(directory, settings, state)
    config = yaml.safe_load(Path(variables["SAGEMAKER_USER_CONFIG_OVERRIDE"]).read_text())
    sections = config["SageMaker"]
    modules = sections["PythonSDK"]["Modules"]
    assert sections["Model"] == {"ExecutionRoleArn": settings.role_arn}
    for section in (
        sections["TrainingJob"],
        sections["ProcessingJob"],
        sections["CompilationJob"],
        modules["RemoteFunction"],
        modules["Serve"],
    ):
        assert section == {"RoleArn": settings.role_arn}
