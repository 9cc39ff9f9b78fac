"""The command line: what it prints where, and the exit codes that scripts rely on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

Run = Callable[..., Result]
CARD = {
    "id": "tiny",
    "title": "Tiny",
    "task": "text-generation",
    "parameters": 134_515_008,
    "licence": "apache-2.0",
    "gated": False,
    "default_instance_type": "ml.m5.large",
    "image_uri": "1.dkr.ecr.us-east-1.amazonaws.com/djl-inference:x",
    "environment": {"HF_MODEL_ID": "tiny"},
}


@pytest.fixture
def zoo(fake: Any, sdk_tools: Any) -> None:
    fake.rules["GET /api/zoo"] = sdk_tools.Reply({"models": [CARD]})
    fake.rules["GET /api/zoo/tiny"] = sdk_tools.Reply(CARD)


@pytest.mark.usefixtures("zoo")
class TestDeploy:
    def test_it_waits_and_prints_the_name(self, fake: Any, run: Run) -> None:
        fake.endpoint("assistant", "Creating", "InService")
        result = run(
            "deploy", "tiny", "--name", "assistant", "--count", "2", "--instance-type",
            "ml.c5.large", "--env", "A=1", "--env", "B=x=y",
        )  # fmt: skip
        assert result.exit_code == 0
        assert result.stdout == "assistant\n"
        assert "ridgeline chat assistant" in result.stderr
        (model,) = fake.requests("CreateModel")
        assert model["PrimaryContainer"]["Environment"] == {
            "HF_MODEL_ID": "tiny",
            "A": "1",
            "B": "x=y",
        }
        (config,) = fake.requests("CreateEndpointConfig")
        variant = config["ProductionVariants"][0]
        assert (variant["InstanceType"], variant["InitialInstanceCount"]) == ("ml.c5.large", 2)

    def test_a_pace_is_a_variable_of_the_container(self, fake: Any, run: Run) -> None:
        fake.endpoint("tiny")
        simulated = ("--instance-type", "ml.inf2.xlarge")
        assert run("deploy", "tiny", "--pace", "real-time", *simulated).exit_code == 0
        (model,) = fake.requests("CreateModel")
        assert model["PrimaryContainer"]["Environment"]["RIDGELINE_PACE"] == "real-time"
        assert run("deploy", "tiny", "--pace", "slow").exit_code == 2

    def test_a_pace_is_refused_where_nothing_is_simulated(self, fake: Any, run: Run) -> None:
        result = run("deploy", "tiny", "--pace", "real-time")
        assert result.exit_code == 2
        assert "ml.m5.large" in result.stderr
        assert "ml.inf2.xlarge" in result.stderr
        assert fake.operations() == []

    def test_the_next_step_is_the_card_s_example(self, fake: Any, run: Run, sdk_tools: Any) -> None:
        example = {"name": "Sentences", "body": {"inputs": ["It's one.", "Two."]}}
        card = {**CARD, "task": "text-embedding", "example_payloads": [example]}
        fake.rules["GET /api/zoo/tiny"] = sdk_tools.Reply(card)
        fake.endpoint("tiny")
        told = run("deploy", "tiny").stderr.splitlines()[-1]
        assert json.loads(shlex.split(told)[-1]) == example["body"]

    @pytest.fixture
    def failed(self, fake: Any, sdk_tools: Any) -> Callable[[str, str], None]:
        """Have endpoint tiny, of these models and configuration, Failed until it is deleted."""

        def have(config: str, model: str) -> None:
            fake.endpoint("tiny", "InService", config=config)
            (endpoint,) = fake.rules["DescribeEndpoint"]
            endpoint.body["EndpointStatus"] = "Failed"
            (described,) = fake.rules["DescribeEndpointConfig"]
            described.body["ProductionVariants"][0]["ModelName"] = model
            gone = sdk_tools.aws_error("ValidationException", 'Could not find endpoint "tiny".')
            fake.rules["DescribeEndpoint"] = lambda call: (
                gone if "DeleteEndpoint" in fake.operations() else endpoint
            )
            taken = sdk_tools.aws_error("ValidationException", "It already exists: tiny.")
            fake.on("CreateEndpointConfig", taken, sdk_tools.Reply({"EndpointConfigArn": "a" * 20}))
            fake.on("ListEndpoints", sdk_tools.Reply({"Endpoints": []}))
            fake.on("ListEndpointConfigs", sdk_tools.Reply({"EndpointConfigs": []}))

        return have

    def test_an_endpoint_that_failed_is_replaced(
        self, fake: Any, run: Run, failed: Callable[[str, str], None]
    ) -> None:
        model = "tiny-20260102-030405-678"
        failed("tiny", model)
        result = run("deploy", "tiny")
        assert result.exit_code == 0, result.stderr
        assert result.stdout == "tiny\n"
        assert "'tiny' had failed" in result.stderr
        assert f"configuration tiny and its model {model}" in " ".join(result.stderr.split())
        assert {"ModelName": model} in fake.requests("DeleteModel")
        assert fake.requests("DeleteEndpointConfig") == [{"EndpointConfigName": "tiny"}]
        assert fake.operations()[-1] == "CreateEndpoint"

    @pytest.mark.parametrize(
        ("config", "model"), [("mine", "tiny-20260102-030405-678"), ("tiny", "mine")]
    )
    def test_what_no_deploy_made_stays(
        self, fake: Any, run: Run, failed: Callable[[str, str], None], config: str, model: str
    ) -> None:
        failed(config, model)
        result = run("deploy", "tiny")
        assert result.exit_code == 0, result.stderr
        assert "Deleted endpoint tiny.\n" in result.stderr
        assert "DeleteEndpointConfig" not in fake.operations()
        assert {"ModelName": model} not in fake.requests("DeleteModel")

    @pytest.mark.parametrize("status", ["InService", "OutOfService", "UpdateRollbackFailed"])
    def test_one_that_did_not_fail_is_not(
        self, fake: Any, run: Run, sdk_tools: Any, status: str
    ) -> None:
        fake.endpoint("tiny", "InService")
        fake.rules["DescribeEndpoint"][0].body["EndpointStatus"] = status
        taken = sdk_tools.aws_error("ValidationException", "It already exists: tiny.")
        fake.on("CreateEndpointConfig", taken)
        result = run("deploy", "tiny")
        assert result.exit_code == 6
        assert "ridgeline delete tiny" in result.stderr
        assert "DeleteEndpoint" not in fake.operations()

    def test_the_endpoint_is_named_after_the_model(self, fake: Any, run: Run) -> None:
        fake.endpoint("tiny")
        assert run("deploy", "tiny").stdout == "tiny\n"

    def test_json(self, fake: Any, run: Run) -> None:
        fake.endpoint("tiny")
        body = json.loads(run("deploy", "tiny", "--json").stdout)
        assert (body["endpoint"], body["status"], body["model"]) == ("tiny", "InService", "tiny")

    def test_no_wait_does_not_look(self, fake: Any, run: Run) -> None:
        result = run("deploy", "tiny", "--no-wait", "--json")
        assert json.loads(result.stdout)["status"] == "Creating"
        assert not [call for call in fake.calls if "endpoints" in call.path]

    def test_a_failure_says_why_and_is_an_exit_code(self, fake: Any, run: Run) -> None:
        failed = {
            "name": "tiny",
            "status": "Failed",
            "failure_reason": "no memory",
            "hint": "Take a larger type.",
            "log_tail": ["last words"],
        }
        fake.endpoint("tiny", failed)
        result = run("deploy", "tiny")
        assert result.exit_code == 1
        assert result.stdout == ""
        for part in ("no memory", "Take a larger type.", "last words"):
            assert part in result.stderr
        error = json.loads(run("deploy", "tiny", "--json").stderr.splitlines()[-1])["error"]
        assert error["code"] == "DeployFailed"
        assert error["log_tail"] == ["last words"]

    def test_an_unknown_model(self, fake: Any, run: Run, sdk_tools: Any) -> None:
        fake.rules["GET /api/zoo/tiney"] = sdk_tools.api_error(
            "NotFound", "No model 'tiney'.", 404, "Did you mean 'tiny'?"
        )
        result = run("deploy", "tiney")
        assert result.exit_code == 4
        assert "Did you mean 'tiny'?" in result.stderr

    @pytest.mark.parametrize("name", ["bad_name", "-x", "x-", "", "a" * 64, "x\n"])
    def test_a_name_that_cannot_be_is_refused_before_anything_is_made(
        self, fake: Any, run: Run, name: str
    ) -> None:
        result = run("deploy", "tiny", f"--name={name}")
        assert result.exit_code == 2
        assert f"--name: {name!r}" in result.stderr
        assert "letters, digits and hyphens" in result.stderr
        assert fake.calls == []

    def test_a_timeout(self, fake: Any, run: Run) -> None:
        fake.endpoint("tiny", "Creating")
        assert run("deploy", "tiny", "--timeout", "5").exit_code == 6

    def test_wrong_arguments(self, run: Run) -> None:
        assert run("deploy").exit_code == 2
        assert run("deploy", "tiny", "--count", "0").exit_code == 2
        assert run("deploy", "tiny", "--env", "novalue").exit_code == 2

    def test_ctrl_c(self, fake: Any, run: Run, clock: Any) -> None:
        fake.endpoint("tiny", "Creating")

        def interrupt() -> None:
            raise KeyboardInterrupt

        clock.on_sleep = interrupt
        result = run("deploy", "tiny")
        assert result.exit_code == 130
        assert not [name for name in fake.operations() if name.startswith("Delete")]


STREAM = "POST /endpoints/e/invocations-response-stream"
INVOKE = "POST /endpoints/e/invocations"


class TestChat:
    @pytest.fixture(autouse=True)
    def _answers(self, fake: Any, sdk_tools: Any) -> None:
        chunks = [{"choices": [{"delta": {"content": text}}]} for text in ("Par", "is")]
        body = sdk_tools.event_stream(*(f"data: {json.dumps(c)}\n\n".encode() for c in chunks))
        fake.rules[STREAM] = sdk_tools.Reply(body)
        fake.rules[INVOKE] = sdk_tools.Reply({"choices": [{"message": {"content": "Paris"}}]})

    def test_a_prompt(self, fake: Any, run: Run) -> None:
        result = run("chat", "e", "Capital?", "--system", "Brief.", "--max-tokens", "9")
        assert (result.exit_code, result.stdout) == (0, "Paris\n")
        assert fake.calls[-1].json["messages"] == [
            {"role": "system", "content": "Brief."},
            {"role": "user", "content": "Capital?"},
        ]
        assert fake.calls[-1].json["max_tokens"] == 9

    def test_piped_input_is_the_prompt(self, fake: Any, run: Run) -> None:
        assert run("chat", "e", input="Capital?\n").stdout == "Paris\n"
        assert fake.calls[-1].json["messages"][0]["content"] == "Capital?"
        assert run("chat", "e", input="").exit_code == 2

    def test_json(self, run: Run) -> None:
        result = run("chat", "e", "Capital?", "--json")
        assert json.loads(result.stdout) == {"endpoint": "e", "text": "Paris"}

    def test_the_help_says_that_a_pipe_is_one_message(self, run: Run) -> None:
        text = " ".join(run("chat", "--help").stdout.split())
        assert "Piped standard input is one message" in text

    def test_a_conversation_remembers(
        self, fake: Any, run: Run, monkeypatch: pytest.MonkeyPatch, sdk_tools: Any
    ) -> None:
        lines = iter(["First", "", "Second", "Third"])

        def ask(prompt: str) -> str:
            try:
                return next(lines)
            except StopIteration:
                raise EOFError from None

        full = sdk_tools.aws_error("ThrottlingException", "The queue is full.", 429)
        good = fake.rules[STREAM]
        fake.rules[STREAM] = lambda call: (
            full if call.json["messages"][-1]["content"] == "Second" else good
        )
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        monkeypatch.setattr("builtins.input", ask)
        monkeypatch.setattr("ridgeline.cli.chat._is_conversation", lambda: True)
        result = run("chat", "e")
        assert result.exit_code == 0
        assert "queue is full" in result.stderr
        said = [turn["content"] for turn in fake.calls[-1].json["messages"]]
        assert said == ["First", "Paris", "Third"]

    def test_an_unknown_endpoint(self, fake: Any, run: Run, sdk_tools: Any) -> None:
        fake.rules[STREAM] = sdk_tools.aws_error("ValidationError", "Endpoint e not found.")
        assert run("chat", "e", "x").exit_code == 4


class TestInvoke:
    def test_bodies_come_from_three_places(
        self, fake: Any, run: Run, sdk_tools: Any, tmp_path: Path
    ) -> None:
        fake.rules[INVOKE] = lambda call: sdk_tools.Reply(call.body + b"!")
        file = tmp_path / "in.csv"
        file.write_bytes(b"1,2\xff")
        assert run("invoke", "e", "--data", '{"x": 1}').stdout == '{"x": 1}!'
        assert fake.calls[-1].headers["content-type"] == "application/json"
        result = run("invoke", "e", "--file", str(file), "--content-type", "text/csv")
        assert result.stdout_bytes == b"1,2\xff!"
        assert fake.calls[-1].headers["content-type"] == "text/csv"
        assert run("invoke", "e", input="piped").stdout == "piped!"
        assert run("invoke", "e", "--file", "-", input="piped").stdout == "piped!"
        assert json.loads(run("invoke", "e", "-d", "x", "--json").stdout) == {
            "endpoint": "e",
            "body": "x!",
        }

    def test_a_body_may_be_an_argument(self, fake: Any, run: Run, sdk_tools: Any) -> None:
        fake.rules[INVOKE] = lambda call: sdk_tools.Reply(call.body + b"!")
        assert run("invoke", "e", '{"x": 1}').stdout == '{"x": 1}!'
        assert run("invoke", "e", "x", "-d", "y").exit_code == 2
        assert run("invoke", "e", "x", "-f", "y").exit_code == 2

    def test_the_last_line_ends_where_somebody_reads_it(
        self, fake: Any, run: Run, sdk_tools: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake.rules[INVOKE] = lambda call: sdk_tools.Reply(call.body)
        fake.rules[STREAM] = sdk_tools.Reply(sdk_tools.event_stream(b"one ", b"two"))
        assert run("invoke", "e", '{"x": 1}').stdout == '{"x": 1}\n'
        assert run("invoke", "e", "[1]\n").stdout == "[1]\n"
        assert run("invoke", "e", "1,2").stdout == "1,2"
        monkeypatch.setattr("ridgeline.cli.invoke._on_a_terminal", lambda: True)
        assert run("invoke", "e", "1,2").stdout == "1,2\n"
        assert run("invoke", "e", "1,2\n").stdout == "1,2\n"
        assert run("invoke", "e", "x", "--stream").stdout == "one two\n"

    def test_a_stream(self, fake: Any, run: Run, sdk_tools: Any) -> None:
        fake.rules[STREAM] = sdk_tools.Reply(sdk_tools.event_stream(b"one ", b"two"))
        assert run("invoke", "e", "-d", "x", "--stream").stdout == "one two"

    def test_async(self, fake: Any, run: Run, sdk_tools: Any) -> None:
        headers = {"X-Amzn-SageMaker-OutputLocation": "s3://b/out"}
        reply = sdk_tools.Reply({"InferenceId": "i1"}, 202, headers)
        fake.rules["POST /endpoints/e/async-invocations"] = reply
        assert run("invoke", "e", "-d", "x", "--async", "--no-wait").stdout == "s3://b/out\n"
        fake.objects["b/out"] = (b"answer", "text/plain")
        assert run("invoke", "e", "-d", "x", "--async").stdout == "answer"

    def test_wrong_arguments(self, run: Run, tmp_path: Path) -> None:
        assert run("invoke", "e", "-d", "x", "-f", "y").exit_code == 2
        assert run("invoke", "e", "-d", "x", "--stream", "--async").exit_code == 2
        assert run("invoke", "e", "-f", str(tmp_path / "absent")).exit_code == 4
        assert run("invoke", "e", "-f", str(tmp_path)).exit_code == 2

    def test_exit_codes_tell_a_wrong_value_from_a_wrong_state(
        self, fake: Any, run: Run, sdk_tools: Any
    ) -> None:
        body = {"Message": "m", "OriginalStatusCode": 400, "OriginalMessage": "no such field"}
        fake.rules[INVOKE] = sdk_tools.Reply(body, 424, {"x-amzn-ErrorType": "ModelError"})
        assert run("invoke", "e", "-d", "x").exit_code == 2
        fake.rules[INVOKE] = sdk_tools.aws_error(
            "ValidationError", "Endpoint e of account 1 is not InService: its status is Failed."
        )
        assert run("invoke", "e", "-d", "x").exit_code == 6

    def test_no_wait_is_of_async(self, fake: Any, run: Run) -> None:
        result = run("invoke", "e", "-d", "x", "--no-wait")
        assert result.exit_code == 2
        assert "--async" in result.stderr
        assert fake.calls == []

    def test_a_model_s_error(self, fake: Any, run: Run, sdk_tools: Any) -> None:
        body = {"Message": "m", "OriginalStatusCode": 500, "OriginalMessage": "KeyError"}
        fake.rules[INVOKE] = sdk_tools.Reply(body, 424, {"x-amzn-ErrorType": "ModelError"})
        result = run("invoke", "e", "-d", "x")
        assert result.exit_code == 1
        assert "KeyError" in result.stderr


@pytest.mark.usefixtures("zoo")
class TestZooAndKeys:
    def test_zoo_ls(self, fake: Any, run: Run) -> None:
        header, line = run("zoo", "ls").stdout.splitlines()
        assert header.split()[0] == "ID"
        assert line.split() == ["tiny", "text-generation", "135M", "apache-2.0"]
        assert json.loads(run("zoo", "ls", "llama", "--json").stdout) == [CARD]
        assert fake.calls[-1].query == {"q": ["llama"]}

    def test_zoo_show(self, run: Run) -> None:
        text = run("zoo", "show", "tiny").stdout
        assert "apache-2.0" in text
        assert text.endswith("ridgeline deploy tiny\n")
        assert json.loads(run("zoo", "show", "tiny", "--json").stdout) == CARD

    def test_keys(self, fake: Any, run: Run, sdk_tools: Any) -> None:
        key = {"key_id": "k1", "access_key_id": "A", "secret_access_key": "S", "api_key": "R"}
        fake.rules["POST /api/keys"] = sdk_tools.Reply(key, 201)
        fake.rules["GET /api/keys"] = sdk_tools.Reply({"keys": [{"key_id": "k1", "name": "ci"}]})
        fake.rules["DELETE /api/keys/k1"] = sdk_tools.Reply(b"", 204)
        assert run("keys", "create", "ci").stdout.splitlines() == [
            "AWS_ACCESS_KEY_ID=A",
            "AWS_SECRET_ACCESS_KEY=S",
            "OPENAI_API_KEY=R",
        ]
        assert fake.calls[-1].json == {"name": "ci"}
        assert json.loads(run("keys", "create", "ci", "--json").stdout) == key
        assert run("keys", "ls").stdout.splitlines()[1].split() == ["k1", "ci", "-", "-"]
        run("keys", "create", "ci", "--requests-per-minute", "60", "--tokens-per-minute", "9000")
        asked = {"name": "ci", "requests_per_minute": 60, "tokens_per_minute": 9000}
        assert fake.calls[-1].json == asked
        assert run("keys", "rm", "k1").exit_code == 0
        assert run("keys", "rm", "k2").exit_code == 4

    def test_a_key_needs_a_name(self, fake: Any, run: Run) -> None:
        result = run("keys", "create", "")
        assert result.exit_code == 2
        assert "A key needs a name." in result.stderr
        assert fake.calls == []

    def test_a_key_is_deleted_by_its_name_if_no_other_has_it(
        self, fake: Any, run: Run, sdk_tools: Any
    ) -> None:
        names = {"k1": "ci", "k2": "twice", "k3": "twice", "k4": "k1"}
        keys = [{"key_id": key_id, "name": name} for key_id, name in names.items()]
        fake.rules["GET /api/keys"] = sdk_tools.Reply({"keys": keys})
        for key_id in names:
            fake.rules[f"DELETE /api/keys/{key_id}"] = sdk_tools.Reply(b"", 204)
        assert json.loads(run("keys", "rm", "ci", "--json").stdout) == {"deleted": "k1"}
        assert json.loads(run("keys", "rm", "k1", "--json").stdout) == {"deleted": "k1"}
        refused = run("keys", "rm", "twice")
        assert refused.exit_code != 0
        assert "k2, k3" in refused.stderr
        assert fake.calls[-1].method == "GET"
