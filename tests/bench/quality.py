"""What quantizing costs: perplexity, and how often greedy decoding still takes the same token.

    .venv/bin/python tests/bench/quality.py [--window 512] [--prompts 32]

Everything is asked over HTTP of replicas as they serve. Writes .cache/bench/quality.json, which
report.py reads.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from load import Target
from peers.base import REPOSITORY, Model, PeerFailed
from peers.ridgeline import BF16, INT8, Ridgeline
from prepared import prepared_model
from ridgeline_testing import end_tidily_when_told
from tokenizers import Tokenizer

RESULTS = REPOSITORY / ".cache" / "bench"
TEXT = REPOSITORY / "tests" / "data" / "founding.txt"
ANSWER_TOKENS = 64
_PROMPT_TOKENS = 48


@dataclass(frozen=True, slots=True)
class Reading:
    """What one kind of replica makes of the text: ``best`` is the likeliest token of each place."""

    perplexity: float
    best: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]


def main() -> None:
    end_tidily_when_told()
    parser = argparse.ArgumentParser(description="Measure what quantizing costs.")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="a card, or a folder")
    parser.add_argument("--window", type=int, default=512, help="tokens of context at most")
    parser.add_argument("--prompts", type=int, default=32)
    arguments = parser.parse_args()
    folder = prepared_model(arguments.model)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode(TEXT.read_text(), add_special_tokens=False).ids
    readings: dict[str, Reading] = {}
    skipped: dict[str, str] = {}
    for peer in (BF16, INT8):
        try:
            readings[peer.name] = _read(peer, Model(folder, RESULTS), ids, arguments)
        except PeerFailed as error:
            skipped[peer.name] = str(error).splitlines()[-1]
    reference = readings[BF16.name]
    report = {
        "text": TEXT.name,
        "tokens": len(ids),
        "window": arguments.window,
        "steps": len(reference.best),
        "prompts": arguments.prompts,
        "answer_tokens": ANSWER_TOKENS,
        "skipped": skipped,
        "kinds": {name: _compared(reading, reference) for name, reading in readings.items()},
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "quality.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))


def _read(
    peer: Ridgeline, model: Model, ids: Sequence[int], arguments: argparse.Namespace
) -> Reading:
    losses: list[float] = []
    best: list[str] = []
    with peer.start(model) as replica:
        for first in range(0, len(ids) - 1, arguments.window):
            window = list(ids[first : first + arguments.window])
            if len(window) < 2:
                break
            scored = _complete(replica.target, prompt=window, echo=True, max_tokens=0, logprobs=1)
            losses += [-value for value in scored["token_logprobs"][1:]]
            best += [max(top, key=top.__getitem__) for top in scored["top_logprobs"][1:]]
        stride = (len(ids) - _PROMPT_TOKENS) // arguments.prompts
        answers = [
            _complete(
                replica.target,
                prompt=list(ids[start : start + _PROMPT_TOKENS]),
                max_tokens=ANSWER_TOKENS,
                ignore_eos=True,
                logprobs=0,
            )["tokens"]
            for start in range(0, stride * arguments.prompts, stride)
        ]
    perplexity = math.exp(statistics.fmean(losses))
    return Reading(perplexity, tuple(best), tuple(tuple(answer) for answer in answers))


def _complete(target: Target, **body: Any) -> dict[str, Any]:
    """The log-probabilities of a greedy completion."""
    request = urllib.request.Request(
        f"{target.url}/completions",
        json.dumps({"model": target.model, "temperature": 0, **body}).encode(),
        {"Content-Type": "application/json", **target.headers},
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        found: dict[str, Any] = json.load(answer)["choices"][0]["logprobs"]
    return found


def _compared(reading: Reading, reference: Reading) -> dict[str, float]:
    """Shares: same likeliest token after the same past; answers alike up to a difference."""
    same = [a == b for a, b in zip(reading.best, reference.best, strict=True)]
    alike = [
        sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(mine, theirs, strict=True)))
        / len(theirs)
        for mine, theirs in zip(reading.answers, reference.answers, strict=True)
    ]
    return {
        "perplexity": reading.perplexity,
        "agreement": statistics.fmean(same),
        "alike": statistics.fmean(alike),
        "identical": statistics.fmean(share == 1 for share in alike),
    }


if __name__ == "__main__":
    main()
