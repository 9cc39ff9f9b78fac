"""Cards of models of the Hugging Face hub, made from their configuration."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ridgeline_service.control.staging import StagingFailed
from ridgeline_service.control.staging.hub import HubCards
from ridgeline_zoo import load_cards


class Hub(BaseHTTPRequestHandler):
    """A hub with one open and one gated model."""

    def do_GET(self) -> None:
        name = self.path.removesuffix("/resolve/main/config.json")
        status = {"/org/Tiny-Llama": 200, "/org/judge": 200, "/org/gated": 403}.get(name, 404)
        like = "all-minilm-l6-v2" if name == "/org/judge" else "tiny-llama-seeded"
        config = dict(next(card for card in load_cards() if card.id == like).config)
        if name == "/org/judge":
            config["architectures"] = ["BertForSequenceClassification"]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(config).encode())

    def log_message(self, *_: object) -> None:
        return None


class TestHub:
    @pytest.fixture
    def cards(self, tmp_path):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield HubCards(tmp_path, {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"})
        server.shutdown()
        server.server_close()
        thread.join()

    def test_a_model_without_a_card_gets_one_from_its_configuration(self, cards):
        card = cards.card("org/Tiny-Llama")
        assert (card.source, card.revision) == ("hf://org/Tiny-Llama", "main")
        assert card.parameters == 664704
        assert load_cards([cards.folder]).get(card.id) == card, "prepare finds it by its id"

    def test_a_cross_encoder_is_known_by_its_architecture(self, cards):
        card = cards.card("org/judge")
        assert (card.task, card.image, card.dtype) == ("text-ranking", "embedding", "fp32")

    @pytest.mark.parametrize(
        ("hub_id", "words"), [("org/gated", "set HF_TOKEN"), ("org/none", "no config.json")]
    )
    def test_refusals_are_named_and_not_retried(self, cards, hub_id, words):
        with pytest.raises(StagingFailed, match=words) as caught:
            cards.card(hub_id)
        assert not caught.value.reason.retried
