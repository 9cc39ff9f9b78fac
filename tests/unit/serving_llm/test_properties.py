"""serving.properties: how its lines are read, and the folder that it may name."""

from __future__ import annotations

from pathlib import Path

import pytest

from ridgeline_service.serving.llm.errors import InvalidSetting
from ridgeline_service.serving.llm.model_folder import model_folder
from ridgeline_service.serving.llm.properties import model_named_in, properties_in
from ridgeline_service.serving.llm.settings import read_settings


@pytest.mark.parametrize(
    "line",
    [
        "option.model_id=s3://b/m",
        "option.model_id = s3://b/m",
        "option.model_id: s3://b/m",
        "option.model_id :s3://b/m",
        "option.model_id s3://b/m",
        "  option.model_id\ts3://b/m  ",
        "option.model_id=s3\\://b/m",
    ],
)
def test_a_line_is_parted_as_java_does(line: str) -> None:
    assert model_named_in(f"# a comment\n! another\n\nengine=Python\n{line}") == "s3://b/m"


def test_only_the_first_separator_parts() -> None:
    text = 'a==b\nc = d e:f\ng\nh\\:i j\noption.x {"k": "v w"}'
    assert list(properties_in(text)) == [
        ("a", "=b"),
        ("c", "d e:f"),
        ("g", ""),
        ("h:i", "j"),
        ("option.x", '{"k": "v w"}'),
    ]


def test_settings_may_be_parted_by_a_colon() -> None:
    settings = read_settings({}, "option.dtype: fp32\noption.max_model_len 128")
    assert (settings.dtype, settings.max_model_len, settings.notes) == ("fp32", 128, ())


@pytest.mark.parametrize(
    ("named", "folder"),
    [
        ("./sub", "sub"),
        ("./a/b/", "a/b"),
        ("/opt/ml/model/sub", "sub"),
        (".", ""),
        ("/opt/ml/model", ""),
        ("/opt/ml/model/", ""),
        ("org/name", ""),
        ("s3://bucket/sub", ""),
        ("", ""),
    ],
)
def test_a_path_names_a_folder_of_the_data(tmp_path: Path, named: str, folder: str) -> None:
    for one in ("sub", "a/b"):
        (tmp_path / one).mkdir(parents=True)
    assert model_folder(tmp_path, f"option.model_id={named}") == tmp_path / folder


@pytest.mark.parametrize(
    "named", ["./none", "../beside", "./sub/../../beside", "/opt/ml/model/none", "/etc"]
)
def test_a_path_that_is_no_folder_of_the_data_is_refused_by_name(
    tmp_path: Path, named: str
) -> None:
    data = tmp_path / "data"
    for folder in (data / "sub", tmp_path / "beside"):
        folder.mkdir(parents=True)
    with pytest.raises(InvalidSetting, match=f"option.model_id={named} is no folder"):
        model_folder(data, f"option.model_id={named}")
