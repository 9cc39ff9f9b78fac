"""Rows of networks on images: what the published scripts give them, and read back."""

from __future__ import annotations

import pytest

from ridgeline_backends.neuron.calibration.quantity import Quantity
from ridgeline_backends.neuron.calibration.rows import Row, UnpredictableRow
from ridgeline_backends.neuron.calibration.workloads import quantities
from ridgeline_backends.neuron.timing.coefficients import prior_coefficients
from ridgeline_backends.neuron.timing.work import Part


def call(model: str, **fields: object) -> Quantity:
    """The latency of one call."""
    given = {"id": "x", "cat": "vision", "model": model, "instance": "inf2.xlarge", **fields}
    found = quantities(Row({"batch": 1, "run_mode": "Data Parallel", **given}))[0]
    assert isinstance(found, Quantity)
    assert found.field == "lat_p50_ms"
    return found


def part(one: Quantity, which: Part) -> float:
    return float((one.work.rows[:, which] * one.work.rows[:, Part.REPEATS]).sum())


def test_clip_compares_all_its_images_with_the_same_captions() -> None:
    captions = [
        part(call("openai/clip-vit-base-patch32", batch=batch), Part.TENSOR)
        - part(call("vit-base-patch32-224", batch=batch), Part.TENSOR)
        for batch in (1, 64)
    ]
    assert captions[0] == pytest.approx(captions[1])
    # 100 captions of 9 tokens through 38 million weights, at 92 TFLOPS.
    assert captions[0] == pytest.approx(2 * 900 * 38e6 / 92e12, rel=0.5)


def test_a_perceiver_of_images_is_given_pixels() -> None:
    learned = call("deepmind/vision-perceiver-learned")
    assert part(learned, Part.HOST_BYTES) < 1e-3


def test_a_perceiver_of_videos_is_given_what_the_host_made_and_gives_colours() -> None:
    video = call("deepmind/multimodal-perceiver")
    # Written four times as fast as read.
    expected = (803297 * 3 * 4 + 52097 * 704 * 4 / 4) / 1e9
    assert part(video, Part.HOST_BYTES) == pytest.approx(expected, rel=0.01)


def test_products_are_made_in_fp32_where_the_compiler_is_told_not_to_cast() -> None:
    cast, whole = (
        part(call("deepmind/multimodal-perceiver", autocast=autocast), Part.TENSOR)
        for autocast in ("Matmult-BF16", "None")
    )
    assert 3 < whole / cast < 4


@pytest.mark.parametrize("model", ["Stable Diffusion 1.5", "PixArt Alpha"])
def test_a_batch_of_images_takes_longer_than_one(model: str) -> None:
    coefficients = prior_coefficients()
    one, four = (call(model, batch=batch, image="512x512") for batch in (1, 4))
    ratio = four.predicted(coefficients) / one.predicted(coefficients)
    # Weights are fetched once for all, and convolutions fill the tensor engine already.
    assert 3 < ratio < 4.5


@pytest.mark.parametrize(
    "written",
    ["3x224x224", "1x3x224x224", "8 x 3 x 224 x 224", "224x224x3", "1x224x224x3", "224X224", "224",
     224],
)  # fmt: skip
def test_an_image_may_be_written_with_its_channels(written: object) -> None:
    found, square = (call("resnet50", image=one) for one in (written, "224x224"))
    assert (found.work.rows == square.work.rows).all()


def test_a_number_in_a_remark_is_no_size() -> None:
    found, own = (call("resnet50", image=one) for one in ("synthetic v2", None))
    assert (found.work.rows == own.work.rows).all()


def test_an_image_has_its_own_size() -> None:
    small, large = (call("resnet50", image=one) for one in ("224x224", "416x416"))
    assert part(large, Part.TENSOR) > 3 * part(small, Part.TENSOR)


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(UnpredictableRow, match="image '0x224' has no pixels"):
        call("resnet50", image="0x224")
