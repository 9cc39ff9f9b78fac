"""What a recommendations job asks for: benchmarks, traffic, and the lengths of its requests."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.errors import InvalidInput
from ridgeline_backends.neuron.catalogue import find
from ridgeline_backends.neuron.jobs.load_test import Borne, Order, Wanted, run
from ridgeline_backends.neuron.jobs.traffic import levels_of
from ridgeline_service.control.command_jobs.benchmarks import (
    VARIABLES,
    benchmarks_of,
    percentile_of,
)
from ridgeline_service.control.command_jobs.life import CommandFailed
from ridgeline_service.control.command_jobs.payload import Lengths, payload_lengths
from ridgeline_service.objects.reading import S3Reader
from ridgeline_service.serving.llm import settings

INF2 = "ml.inf2.xlarge"


def asked(*configurations: dict[str, Any], most: int | None = None) -> dict[str, Any]:
    limit = {} if most is None else {"ResourceLimit": {"MaxNumberOfTests": most}}
    inputs = {"ModelName": "m", "EndpointConfigurations": list(configurations), **limit}
    return {"JobType": "Advanced", "InputConfig": inputs}


def ranges(**values: list[str]) -> dict[str, Any]:
    listed = [{"Name": name, "Value": given} for name, given in values.items()]
    return {"EnvironmentParameterRanges": {"CategoricalParameterRanges": listed}}


def test_every_combination_of_values_is_a_benchmark_up_to_the_limit() -> None:
    degrees, batches = ["1", "2"], ["4", "8"]
    one = {
        "InstanceType": INF2,
        **ranges(
            OPTION_TENSOR_PARALLEL_DEGREE=degrees,
            OPTION_DATA_PARALLEL_SIZE=["1"],
            OPTION_MAX_ROLLING_BATCH_SIZE=batches,
            MINE=["x"],
        ),
    }
    found = benchmarks_of(asked(one), [])
    assert [each.order() for each in found] == [
        {"instance": "inf2.xlarge", "quantized": False, "tp": tp, "copies": 1, "batch": batch}
        for tp in (1, 2)
        for batch in (4, 8)
    ]
    assert all(each.environment["MINE"] == "x" for each in found)
    assert len(benchmarks_of(asked(one, most=3), [])) == 3
    assert len(benchmarks_of(asked(one, one), [])) == 4
    [serverless] = benchmarks_of(asked({"ServerlessConfig": {}}), [])
    assert "no simulated devices" in serverless.refusal
    default = {"JobType": "Default", "InputConfig": {"ModelName": "m"}}
    [own_choice] = benchmarks_of(default, [INF2])
    assert own_choice.order() == {"instance": "inf2.xlarge"}


def test_settings_are_read_as_an_endpoint_reads_them() -> None:
    def read(**values: list[str]) -> dict[str, Any]:
        [found] = benchmarks_of(asked({"InstanceType": "ml.inf2.48xlarge", **ranges(**values)}), [])
        assert not found.refusal
        order = found.order()
        assert order.pop("instance") == "inf2.48xlarge"
        return order

    assert read(OPTION_TENSOR_PARALLEL_DEGREE=[" 8 "], SM_NUM_GPUS=["4"]) == {
        "quantized": False,
        "tp": 8,
    }
    assert read(OPTION_TENSOR_PARALLEL_DEGREE=["max"])["tp"] == 2
    assert read(OPTION_QUANTIZE=["none"]) == {"quantized": False}
    assert read(OPTION_QUANTIZE=["INT8"], MAX_TOTAL_TOKENS=["512"], NUM_SHARD=[""]) == {
        "quantized": True,
        "length": 512,
    }
    [two] = benchmarks_of(asked({"InstanceType": INF2, **ranges(NUM_SHARD=["two"])}), [])
    assert two.refusal == "NUM_SHARD=two is not valid. Allowed: a whole number, at least 1."


def test_every_variable_that_an_endpoint_reads_decides_its_test() -> None:
    targets = {
        "tensor_parallel_degree": "tp",
        "data_parallel_size": "copies",
        "logical_nc_config": "lnc",
        "max_num_seqs": "batch",
        "max_model_len": "length",
        "quantize": "quantized",
    }
    read = {**settings._TGI, **settings._OWN}
    for prefix in ("SM_VLLM_", "OPTION_"):
        read.update({f"{prefix}{name}": target for name, target in settings._LMI.items()})
    wanted = {name: targets[target] for name, target in read.items() if target in targets}
    assert wanted == VARIABLES


def test_percentiles_are_read() -> None:
    assert percentile_of("P95") == 0.95
    for wrong in ("P0", "often", "P101"):
        with pytest.raises(ValueError, match=wrong if wrong == "often" else "P"):
            percentile_of(wrong)


def test_phases_and_stairs_become_levels() -> None:
    phases = [
        {"InitialNumberOfUsers": 1, "SpawnRate": 2, "DurationInSeconds": 120},
        {"InitialNumberOfUsers": 5, "SpawnRate": 0, "DurationInSeconds": 60},
    ]
    found = levels_of({"TrafficType": "PHASES", "Phases": phases}, 7200)
    assert [users for users, _ in found] == [1, 2, 3, 4, 5, 5]
    assert found[-1] == (5, 60)
    stairs = {"DurationInSeconds": 60, "NumberOfSteps": 3, "UsersPerStep": 2}
    stepped = levels_of({"TrafficType": "STAIRS", "Stairs": stairs}, 150)
    assert stepped == [(2, 60.0), (4, 60.0), (6, 30.0)]
    assert levels_of({}, 7200) == []


@given(
    begun=st.integers(1, 50),
    spawn=st.integers(0, 1000),
    seconds=st.integers(1, 3600),
    most=st.integers(1, 7200),
)
def test_a_phase_lasts_as_long_as_it_may(begun: int, spawn: int, seconds: int, most: int) -> None:
    phase = {"InitialNumberOfUsers": begun, "SpawnRate": spawn, "DurationInSeconds": seconds}
    found = levels_of({"Phases": [phase]}, most)
    assert sum(each for _, each in found) == pytest.approx(min(seconds, most))
    users = [each for each, _ in found]
    assert users == sorted(users)
    assert users[0] == begun
    assert len(found) <= 12


class Store:
    """An S3 client that knows one object."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def get_object(self, **_: str) -> dict[str, Any]:
        class Body(io.BytesIO):
            def iter_chunks(self, size: int) -> Any:
                return iter([self.read()])

        return {"Body": Body(self.body)}


def archive(*bodies: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as packed:
        for place, body in enumerate(bodies):
            member = tarfile.TarInfo(f"payload/{place}.json")
            member.size = len(body)
            packed.addfile(member, io.BytesIO(body))
    return out.getvalue()


CHAT = {"messages": [{"role": "user", "content": "a" * 400}], "max_tokens": 20}
TGI = {"inputs": "b" * 800, "parameters": {"max_new_tokens": 40}}


def test_requests_are_as_long_as_the_sample_says() -> None:
    packed = S3Reader(Store(archive(json.dumps(CHAT).encode(), json.dumps(TGI).encode())))
    assert payload_lengths(packed, "s3://b/p.tar.gz", None) == Lengths(prompt=150, answer=30)
    assert payload_lengths(packed, "s3://b/p.tar.gz", len) == Lengths(prompt=600, answer=30)
    one = S3Reader(Store(b"c" * 40))
    assert payload_lengths(one, "s3://b/p.txt", None) == Lengths(prompt=10, answer=None)
    with pytest.raises(CommandFailed, match="holds no request"):
        payload_lengths(S3Reader(Store(archive())), "s3://b/p.tar.gz", None)
    with pytest.raises(CommandFailed, match=r"is no \.tar\.gz archive of sample payloads\.$"):
        payload_lengths(S3Reader(Store(b"torn")), "s3://b/p.tar.gz", None)


EMBED = {"inputs": ["d" * 40, "e" * 80]}
RERANK = {"query": "f" * 9, "documents": ["g" * 10, {"text": "g" * 30}, "g" * 20]}


def test_requests_of_encoders_have_texts_of_a_length() -> None:
    def lengths(given: dict[str, Any]) -> Lengths:
        return payload_lengths(S3Reader(Store(json.dumps(given).encode())), "s3://b/p.json", len)

    assert lengths(EMBED) == Lengths(prompt=60, texts=2)
    assert lengths(RERANK) == Lengths(prompt=30, texts=3)  # query, a space and document
    assert lengths({"input": "h" * 7}) == Lengths(prompt=7)


CONFIG = find("smollm2-135m", "decoders").config


def borne(test: Wanted, **changes: Any) -> Borne | str:
    [found] = run(Order(config=CONFIG, prompt=100, answer=20, tests=[test], **changes))
    return found


def test_more_users_are_borne_until_a_limit_is_met() -> None:
    test = Wanted(instance="inf2.xlarge", tp=2, batch=4)
    free = borne(test)
    assert isinstance(free, Borne)
    assert (free.tp, free.batch) == (2, 4)
    levels = [(1, 60.0), (2, 60.0), (4, 60.0), (8, 60.0)]
    few = borne(test, levels=levels[:1])
    many = borne(test, levels=levels)
    assert isinstance(few, Borne)
    assert isinstance(many, Borne)
    assert few.users == 1
    assert many.per_minute > 1.5 * few.per_minute
    assert many.latency_s > few.latency_s
    between = (few.latency_s + many.latency_s) / 2
    held = borne(test, levels=levels, limit_s=between)
    assert isinstance(held, Borne)
    assert held.latency_s <= between
    assert held.per_minute <= many.per_minute
    enough = borne(test, levels=levels, enough_per_minute=1)
    assert enough == few
    assert "95% of the requests of 1 users" in str(borne(test, limit_s=few.latency_s / 10))


def test_what_cannot_be_tested_says_why() -> None:
    quick = borne(Wanted(instance="inf2.xlarge", tp=2, batch=4), levels=[(1, 0.001)], limit_s=1.0)
    assert quick == "no request is answered before the traffic ends"
    assert "only simulated Neuron" in str(borne(Wanted(instance="m5.large")))
    assert "configuration 2" in str(borne(Wanted(instance="inf2.xlarge", lnc=2)))
    chosen = borne(Wanted(instance="trn2.3xlarge", lnc=1, tp=4, copies=2))
    assert isinstance(chosen, Borne)
    assert (chosen.lnc, chosen.tp, chosen.copies) == (1, 4, 2)
    many = borne(Wanted(instance="trn2.48xlarge", copies=16))
    assert isinstance(many, Borne)
    assert (many.copies, many.tp * 16 <= 64) == (16, True)
    assert "degree 7; it does at 1, 2" in str(borne(Wanted(instance="inf2.xlarge", tp=7)))


def test_weights_are_in_8_bits_where_that_is_asked_for_or_nothing_else_fits() -> None:
    """Of two degrees one was tested with 8-bit weights that nobody asked for."""
    levels = [(1, 60.0)]
    for tp in (1, 2):
        found = borne(Wanted(instance="inf2.xlarge", tp=tp), levels=levels)
        assert isinstance(found, Borne)
        assert not found.quantized
        assert "OPTION_QUANTIZE" not in found.environment
    asked = borne(Wanted(instance="inf2.xlarge", tp=1, quantized=True), levels=levels)
    assert isinstance(asked, Borne)
    assert asked.environment["OPTION_QUANTIZE"] == "int8"
    large = Order(
        config=find("llama-3.1-8b", "decoders").config,
        levels=levels,
        tests=[Wanted(instance="inf2.xlarge", tp=1, quantized=kept) for kept in (None, False)],
    )
    narrow, refused = run(large)
    assert isinstance(narrow, Borne)
    assert narrow.quantized
    assert "with 8-bit weights alone; OPTION_QUANTIZE=int8" in str(refused)


def test_all_that_an_endpoint_compiles_must_fit_a_core() -> None:
    """Each program of batch 52 has room alone."""
    test = Wanted(instance="inf2.xlarge", tp=2, batch=51, length=8192)
    fits = borne(test, levels=[(1, 60.0)])
    assert isinstance(fits, Borne)
    assert fits.core_bytes <= fits.core_bytes_available
    assert fits.environment["OPTION_MAX_MODEL_LEN"] == "8192"
    assert "Allocation Failure" in str(borne(replace(test, batch=52), levels=[(1, 60.0)]))


def test_sequences_are_as_long_as_the_test_says_or_its_requests_need() -> None:
    levels = [(1, 60.0)]

    def length(**changes: Any) -> str:
        test = Wanted(instance="inf2.xlarge", tp=2, batch=1, **changes)
        found = borne(test, levels=levels)
        return found if isinstance(found, str) else found.environment["OPTION_MAX_MODEL_LEN"]

    assert length() == "128"
    assert length(length=600) == "600"
    assert "takes at most 99" in length(length=100)
    assert "A prompt of 100 tokens and an answer of 20 are above" in length(length=110)
    short = {**CONFIG, "max_position_embeddings": 200}
    wanted = Wanted(instance="inf2.xlarge", tp=2, batch=1)
    order = Order(config=short, prompt=150, answer=20, tests=[wanted], levels=levels)
    [found] = run(order)
    assert isinstance(found, Borne)
    assert found.environment["OPTION_MAX_MODEL_LEN"] == "200"
    with pytest.raises(InvalidInput, match="context length 200"):
        run(replace(order, answer=60))


ENCODER = find("all-minilm-l6-v2", "encoders").config


def test_encoders_answer_whole_requests_one_after_the_other() -> None:
    def embedded(test: Wanted, **changes: Any) -> Borne | str:
        [found] = run(Order(config=ENCODER, tests=[test], **changes))
        return found

    test = Wanted(instance="inf2.xlarge", tp=1, batch=8)
    one, many = embedded(test), embedded(test, texts=8)
    assert isinstance(one, Borne)
    assert isinstance(many, Borne)
    assert (one.tp, one.batch, one.quantized) == (1, 8, False)
    # Two copies of the model answer two users at a time: more only wait.
    assert (one.users, one.copies) == (2, 2)
    alone = embedded(replace(test, copies=1))
    assert isinstance(alone, Borne)
    assert (alone.users, alone.copies) == (1, 1)
    assert alone.per_minute == pytest.approx(one.per_minute / 2, rel=0.01)
    assert "no room for 3 copies of the model; it has for 2" in str(
        embedded(replace(test, copies=3))
    )
    assert one.per_minute == pytest.approx(2 * 60 / one.latency_s, rel=0.01)
    assert many.per_minute < one.per_minute < 8 * many.per_minute
    long = embedded(test, prompt=400)
    assert isinstance(long, Borne)
    assert long.per_minute < one.per_minute
    assert "the model has 512. Set OPTION_MAX_MODEL_LEN" in str(embedded(replace(test, length=513)))
    assert "above the 128 positions" in str(embedded(replace(test, length=128), prompt=400))
    assert "not quantised" in str(embedded(Wanted(instance="inf2.xlarge", quantized=True)))
    assert "1 users take" in str(embedded(test, limit_s=one.latency_s / 10))
    with pytest.raises(InvalidInput, match="600 tokens"):
        embedded(test, prompt=600)
