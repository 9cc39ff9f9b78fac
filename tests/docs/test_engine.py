"""docs/engine.md names every setting, route and field that there is, and none that is not."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from ridgeline_testing import REPOSITORY

from ridgeline_service.serving.llm import settings
from ridgeline_service.serving.llm.app import App
from ridgeline_service.serving.llm.fields import Body
from ridgeline_service.serving.llm.invocations import Flavour
from ridgeline_service.serving.llm.observing import Observer
from ridgeline_service.serving.llm.openai.adapters import LoadBody, UnloadBody
from ridgeline_service.serving.llm.openai.chat import ChatBody
from ridgeline_service.serving.llm.openai.completions import CompletionBody
from ridgeline_service.serving.llm.openai.embeddings import EmbeddingBody
from ridgeline_service.serving.llm.openai.rerank import RerankBody, ScoreBody
from ridgeline_service.serving.llm.openai.sampling import SamplingBody
from ridgeline_service.serving.llm.openai.tokens import DetokenizeBody, TokenizeBody
from ridgeline_service.serving.llm.parameters import InputsBody, Parameters
from ridgeline_service.serving.llm.replica import Replica
from ridgeline_service.serving.llm.speculative import SpeculativeSettings
from ridgeline_service.telemetry.tracing import NO_TRACING

PAGE = (REPOSITORY / "docs" / "engine.md").read_text()
COMMON = "in common"


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    table = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)[0]
    lines = table.strip().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def setting_names(cell: str) -> list[str]:
    """Names of settings, which are the words in capitals."""
    return [name for name in named(cell) if re.fullmatch(r"[A-Z][A-Z_]+", name)]


SETTINGS = rows("Settings")


@pytest.mark.parametrize(
    ("column", "table"),
    [(1, settings._LMI), (2, settings._TGI), (3, settings._OWN)],
    ids=["LMI and vLLM", "TGI", "ours"],
)
def test_settings_are_those_of_the_code(column: int, table: dict[str, str]) -> None:
    listed = [name for row in SETTINGS for name in setting_names(row[column])]
    assert sorted(listed) == sorted(table)


def test_names_in_one_row_mean_one_thing() -> None:
    for what, lmi, tgi, own, _ in SETTINGS:
        tables = ((lmi, settings._LMI), (tgi, settings._TGI), (own, settings._OWN))
        targets = {table[name] for cell, table in tables for name in setting_names(cell)}
        # The form of answers follows from a switch, or from the family of the image.
        assert len(targets - {"flavour"}) == 1, what


def test_speculative_settings_are_those_of_the_code() -> None:
    [what] = [row[0] for row in SETTINGS if "SPECULATIVE_CONFIG" in row[1]]
    unused = {"draft_tensor_parallel_size"}
    assert {*named(what)} - {"none"} == {*SpeculativeSettings.model_fields} - unused


def test_defaults_are_those_of_the_code() -> None:
    found = settings.ModelSettings()
    defaults = {name: row[4] for row in SETTINGS for name in setting_names("".join(row[1:4]))}
    assert int(defaults["MAX_NUM_SEQS"]) == found.max_num_seqs
    assert int(defaults["BLOCK_SIZE"]) == found.block_size
    assert int(defaults["MAX_LORA_RANK"]) == found.max_adapter_rank
    assert defaults["DTYPE"] == settings.DEFAULT_DTYPE
    assert found.speculative is not None
    assert defaults["SPECULATIVE_CONFIG"].endswith(str(found.speculative.num_speculative_tokens))
    allowed = settings.read_settings({"OPTION_ENABLE_LORA": "true"})
    assert int(defaults["MAX_LORAS"]) == allowed.max_adapters


ROUTES = {cells[0]: cells[1] for cells in rows("Routes")}
BODIES: dict[str, tuple[type[Body], type[Body] | None]] = {
    "`POST /v1/chat/completions`": (ChatBody, SamplingBody),
    "`POST /v1/completions`": (CompletionBody, SamplingBody),
    "`POST /invocations` with `inputs`": (InputsBody, None),
    "its `parameters`": (Parameters, None),
    "`POST /v1/embeddings`": (EmbeddingBody, None),
    "`POST /v1/rerank`, `/rerank`": (RerankBody, None),
    "`POST /v1/score`, `/score`": (ScoreBody, None),
    "`POST /v1/tokenize`, `/tokenize`": (TokenizeBody, None),
    "`POST /v1/detokenize`, `/detokenize`": (DetokenizeBody, None),
}


def fields(cell: str) -> set[str]:
    """Fields of a row; what is in brackets are their values."""
    return {*named(re.sub(r"\([^)]*\)", "", cell))}


@pytest.mark.parametrize("route", BODIES)
def test_fields_are_those_of_the_code(route: str) -> None:
    body, shared = BODIES[route]
    common = set() if shared is None else {*shared.model_fields}
    assert fields(ROUTES[route]) == {*body.model_fields} - common


def test_common_fields_are_those_of_the_code() -> None:
    listed = [cell for name, cell in ROUTES.items() if name.startswith(COMMON)]
    assert set().union(*map(fields, listed)) == {*SamplingBody.model_fields}


def test_adapter_routes_have_the_fields_of_the_code() -> None:
    (_, load, _), (_, unload, _) = rows("Adapters")
    assert fields(load) == {*LoadBody.model_fields}
    assert fields(unload) == {*UnloadBody.model_fields} - {"lora_int_id"}


def paths() -> Iterator[str]:
    for cell in (*ROUTES, *(row[0] for row in rows("Adapters"))):
        for name in named(cell):
            if "/" in name:
                yield name.split()[-1]


def test_routes_are_those_of_the_code() -> None:
    replica = Replica("replica", time.monotonic)
    app = App(replica, "token", flavour=Flavour.DJL, observer=Observer(NO_TRACING))
    assert {*paths()} == {*app._posts, *app._gets}


def test_files_that_the_page_names_exist() -> None:
    backends = REPOSITORY / "backends" / "ridgeline_backends"
    for cells in rows("From a request to a step"):
        folder = backends
        for name in named(cells[1]):
            path = backends / name if "/" in name else folder / name
            assert path.exists(), name
            folder = path.parent
    for name in re.findall(r"`(tests/[^`]+\.py)`", PAGE):
        assert (REPOSITORY / name).is_file(), name


def test_the_page_can_be_read_in_one_sitting() -> None:
    assert len(PAGE.splitlines()) < 300
