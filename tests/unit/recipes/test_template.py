"""Only what the assistant says is learned, its end included."""

from __future__ import annotations

from collections.abc import Sequence

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline_recipes.failing import RecipeFailed
from ridgeline_recipes.formats import Chat, Message
from ridgeline_recipes.template import IGNORED, Encoded, encode_chat, training_template
from ridgeline_service.serving.llm.text.template import ChatTemplate

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are SmolLM<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
END = "<|im_end|>"


def render(messages: Sequence[Message], begin: bool) -> str:
    """With the template as it is served."""
    template = ChatTemplate(training_template(SMOLLM2), {})
    turns = [message.as_json() for message in messages]
    return template.render(turns, {"add_generation_prompt": begin})


def encode(text: str) -> list[tuple[int, int, int]]:
    """A token for each character, and one for the end of a turn, whose id is 2."""
    found, at = [], 0
    while at < len(text):
        if text.startswith(END, at):
            found.append((2, at, at + len(END)))
            at += len(END)
        else:
            found.append((100 + ord(text[at]), at, at + 1))
            at += 1
    return found


def learned(encoded: Encoded) -> str:
    labels = (label for label in encoded.labels if label != IGNORED)
    return "".join(END if label == 2 else chr(label - 100) for label in labels)


TEXT = st.text("ab <|>\n", min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(turns=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), system=st.none() | TEXT)
def test_the_assistants_turns_are_learned_up_to_their_ends(
    turns: list[tuple[str, str]], system: str | None
) -> None:
    messages = [] if system is None else [Message("system", system)]
    for question, answer in turns:
        messages += [Message("user", question), Message("assistant", answer)]
    encoded = encode_chat(Chat(tuple(messages)), render, encode, frozenset({2}), 10_000)
    assert learned(encoded) == "".join(answer + END for _, answer in turns)
    assert len(encoded.ids) == len(encoded.labels)
    assert not encoded.cut


def test_an_answer_that_holds_the_end_of_a_turn_is_learned_whole() -> None:
    answer = f"A turn ends with {END}, and a line."
    chat = Chat(
        (Message("user", "How?"), Message("assistant", answer), Message("user", f"Is it {END}?"))
        + (Message("assistant", "Yes."),)
    )
    encoded = encode_chat(chat, render, encode, frozenset({2}), 1000)
    assert learned(encoded) == f"{answer}{END}Yes.{END}"


def test_a_long_chat_is_cut_and_says_so() -> None:
    chat = Chat((Message("user", "When?"), Message("assistant", "At 8:40.")))
    whole = encode_chat(chat, render, encode, frozenset({2}), 1000)
    cut = encode_chat(chat, render, encode, frozenset({2}), 20)
    assert cut.cut
    assert cut.ids == whole.ids[:20]
    assert len(cut.labels) == 20


def test_the_template_of_training_adds_no_system_prompt() -> None:
    template = training_template(SMOLLM2)
    made = ChatTemplate(template, {}).render([{"role": "user", "content": "Hi"}], {})
    assert made == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_other_models_keep_their_template() -> None:
    zephyr = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    assert training_template(zephyr) == zephyr
    with_tools = f"{{% if tools %}}tools{{% endif %}}{SMOLLM2}"
    assert training_template(with_tools) == with_tools


def test_a_base_without_a_template_cannot_learn_chats() -> None:
    with pytest.raises(RecipeFailed, match="no chat template"):
        training_template(None)


def test_a_template_that_rewrites_the_beginning_is_refused() -> None:
    environment = jinja2.Environment(autoescape=False)
    source = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    template = environment.from_string(source)

    def changing(messages: Sequence[Message], begin: bool) -> str:
        return template.render(messages=[message.as_json() for message in messages])

    chat = Chat((Message("user", "When?"), Message("assistant", "At 8:40.")))
    with pytest.raises(RecipeFailed, match="renders the beginning of a chat otherwise"):
        encode_chat(chat, changing, encode, frozenset({2}), 1000)
