"""What the documentation says is run: every Python block of the README, and every file it names."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from ridgeline_testing import REPOSITORY, Service

README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.e2e
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_blocks_run_as_they_stand(service: Service, number: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKS[number]],
        env=service.environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("example", "says"),
    [
        (
            "rag.py",
            ["Ranked by cosine similarity", "[1] The last bus", "leaves on Sundays at 17:10"],
        ),
        ("agent.py", ['weather({"city": "Oslo"})', 'multiply({"a": 12, "b": 34})', "= 408"]),
    ],
)
def test_examples_run_by_one_command(service: Service, example: str, says: list[str]) -> None:
    assert f"python examples/{example}" in README
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "examples" / example)],
        env=service.environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    for words in says:
        assert words in done.stdout
    # Named after their models; other tests' endpoints may be there as well.
    known = service.client("sagemaker").list_endpoints(MaxResults=100)["Endpoints"]
    own = [one for one in known if one["EndpointName"].startswith(("smollm2-", "all-minilm-"))]
    assert {one["EndpointStatus"] for one in own} <= {"Deleting"}, "an example cleans up"


def test_there_are_blocks_to_run() -> None:
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        *(f"docs/{path.name}" for path in sorted((REPOSITORY / "docs").glob("*.md"))),
    ],
)
def test_links_lead_somewhere(page: str) -> None:
    path = REPOSITORY / page
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{page} links to {target}"


def test_make_targets_that_pages_name_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    pages = README + (REPOSITORY / "CONTRIBUTING.md").read_text()
    for target in set(re.findall(r"^make (\w+)|`make (\w+)", pages, re.MULTILINE)):
        name = target[0] or target[1]
        assert re.search(rf"^{name}:", makefile, re.MULTILINE), name
