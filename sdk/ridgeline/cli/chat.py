"""``ridgeline chat``: talk to a language model, once or in turns."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from ridgeline.cli import _common
from ridgeline.cli._common import AsJson, DataDir, EndpointName
from ridgeline.errors import InvalidInput, RidgelineError

if TYPE_CHECKING:
    from ridgeline.predictor import Predictor


def chat(
    endpoint: EndpointName,
    prompt: Annotated[
        str | None,
        typer.Argument(
            help="What to say. Without it: if standard input is piped, all of it is one message; "
            "else a conversation.",
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", help="What the model is told first.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, help="Longest answer, in tokens.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", min=0, help="0 is greedy.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Makes sampling repeatable.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Talk to a language model.

    Piped standard input is one message, however many lines it has: to send several, run it again.
    """
    if prompt is None and not _is_conversation():
        prompt = sys.stdin.read().strip()
        if not prompt:
            raise InvalidInput("Standard input is empty.", hint="Give a prompt.")
    session = _common.open_session(data_dir)
    from ridgeline.predictor import Predictor  # boto3: not for --help

    predictor = Predictor(endpoint, sagemaker_session=session)
    talk = _Talk(predictor, system, max_tokens, temperature, seed)
    if prompt is None:
        if as_json:
            raise InvalidInput("--json needs a prompt.")
        _converse(talk)
    elif as_json:
        _common.print_json({"endpoint": endpoint, "text": talk.whole(prompt)})
    else:
        talk.say(prompt)


def _is_conversation() -> bool:
    return sys.stdin.isatty()


class _Talk:
    """A conversation: what was said so far, and how to go on."""

    def __init__(
        self,
        predictor: Predictor,
        system: str | None,
        max_tokens: int | None,
        temperature: float | None,
        seed: int | None,
    ) -> None:
        self._predictor = predictor
        self._system = system
        self._max_tokens = max_tokens
        self._temperature = temperature
        self._seed = seed
        self._turns: list[dict[str, str]] = []

    def whole(self, prompt: str) -> str:
        return self._predictor.chat(
            prompt,
            system=self._system,
            max_tokens=self._max_tokens,
            temperature=self._temperature,
            seed=self._seed,
        )

    def say(self, prompt: str) -> None:
        """Print the answer as it comes. A turn that fails is not remembered."""
        turns = [*self._turns, {"role": "user", "content": prompt}]
        answer = ""
        pieces = self._predictor.chat(
            turns,
            stream=True,
            system=self._system,
            max_tokens=self._max_tokens,
            temperature=self._temperature,
            seed=self._seed,
        )
        try:
            for piece in pieces:
                answer += piece
                print(piece, end="", flush=True)
        finally:
            if answer:
                print(flush=True)
        self._turns = [*turns, {"role": "assistant", "content": answer}]


def _converse(talk: _Talk) -> None:
    """Turns until end of input. Ctrl-C ends an answer, or at the prompt the conversation."""
    with suppress(ImportError):
        import readline  # noqa: F401 - gives input() history and editing where there is one
    _common.say("Ctrl-C stops an answer, Ctrl-D ends the conversation.")
    while True:
        try:
            prompt = input("> ").strip()
        except EOFError:
            print()
            return
        if not prompt:
            continue
        try:
            talk.say(prompt)
        except KeyboardInterrupt:
            _common.say("(stopped)")
        except RidgelineError as error:
            _common.report(error, as_json=False)
