"""Chat templates behave as the hub's templates expect."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from ridgeline_service.serving.llm.errors import BadRequest, LoadFailed
from ridgeline_service.serving.llm.text.template import ChatTemplate
from ridgeline_service.serving.llm.text.tokenizer import (
    eos_token_ids,
    load_chat_template,
    special_tokens,
)

HI = [{"role": "user", "content": "Hi <&>"}]


def render(source: str, **extra: object) -> str:
    template = ChatTemplate(source, {"bos_token": "<s>"}, now=lambda: datetime(2025, 3, 1))
    return template.render(HI, extra)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ bos_token }}{{ messages[0]['content'] }}", "<s>Hi <&>"),
        ("{% for m in messages %}\n  {{ m.role }}\n{% endfor %}\nend", "  user\nend"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "Hi <&>"}]'),
        ("{{ {'a': 'é'} | tojson(indent=1) }}", '{\n "a": "é"\n}'),
        ("{{ strftime_now('%d %b %Y') }}", "01 Mar 2025"),
        ("{% if tools %}tools{% endif %}{% if add_generation_prompt %}go{% endif %}", "go"),
        ("{% for m in [1, 2, 3] %}{% if m == 2 %}{% break %}{% endif %}{{ m }}{% endfor %}", "1"),
        ("a{% generation %}b{{ bos_token }}{% endgeneration %}c", "ab<s>c"),
        ("{% set ns = namespace(n=1) %}{% set ns.n = 2 %}{{ ns.n }}", "2"),
        ("{{ style }}", "brief"),
    ],
)
def test_templates_of_the_hub(source: str, expected: str) -> None:
    assert render(source, style="brief") == expected


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ raise_exception('no system role') }}", "no system role"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ 1 / 0 }}", "division"),
    ],
)
def test_a_template_that_fails_is_a_bad_request(source: str, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        render(source)


def test_a_template_that_does_not_compile_fails_the_load() -> None:
    with pytest.raises(LoadFailed, match="does not compile"):
        ChatTemplate("{% for %}", {})


def test_where_templates_are_found(tmp_path: Path) -> None:
    assert load_chat_template(tmp_path, {}) is None
    named = {
        "chat_template": [
            {"name": "tool_use", "template": "tools"},
            {"name": "default", "template": "plain"},
        ]
    }
    found = load_chat_template(tmp_path, named)
    assert found is not None
    assert found.render(HI, {}) == "plain"
    (tmp_path / "chat_template.jinja").write_text("from the file")
    found = load_chat_template(tmp_path, named)
    assert found is not None
    assert found.render(HI, {}) == "from the file"


def test_special_tokens_and_end_of_sequence(tmp_path: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, models

    from ridgeline_service.serving.llm.text.tokenizer import TextTokenizer

    library = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    library.add_special_tokens([AddedToken("</s>", special=True)])
    tokenizer = TextTokenizer(library)
    config = json.loads('{"eos_token": {"content": "</s>", "lstrip": false}, "bos_token": null}')

    assert special_tokens(config) == {"eos_token": "</s>"}
    assert eos_token_ids({"eos_token_id": 7}, {}, config, tokenizer) == {7, 2}
    assert eos_token_ids({"eos_token_id": 7}, {"eos_token_id": [8, 9]}, {}, tokenizer) == {8, 9}
    assert eos_token_ids({}, {}, {}, tokenizer) == frozenset()
