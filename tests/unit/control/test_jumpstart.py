"""The catalogue that the SDKs read for JumpStart models."""

from __future__ import annotations

import json

from fake_s3 import FakeS3

from ridgeline_service.control.jumpstart import JumpStartCatalogue
from ridgeline_service.settings import Settings
from ridgeline_zoo import load_cards


class TestJumpStart:
    def test_the_catalogue_is_written_once_and_then_only_what_changed(self):
        s3 = FakeS3()
        catalogue = JumpStartCatalogue(Settings(), s3, load_cards)
        written = catalogue.publish()
        assert written == len(s3.puts) > 3
        assert catalogue.publish() == 0
        objects = s3.buckets[Settings().zoo_bucket]
        listed = json.loads(objects["models_manifest.json"])
        assert "smollm2-135m-instruct" in {item["model_id"] for item in listed}
        assert all(item["spec_key"] in objects for item in listed)
        objects["models_manifest.json"] = b"[]"
        assert catalogue.publish() == 1
