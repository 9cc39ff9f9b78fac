"""Verbs as AWS's clients call them: names, refusals and their words, lists, tags, keys."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ridgeline.errors import NotFound
from ridgeline_service.errors import ResourceLimitExceeded, ValidationException
from ridgeline_service.placement.machine import GIB
from ridgeline_service.settings import Settings
from ridgeline_service.snapshot import KeyLimits

ARN = "arn:aws:sagemaker:us-east-1:123456789012"
REGISTRY = "763104351884.dkr.ecr.us-east-1.amazonaws.com"
LLM = f"{REGISTRY}/djl-inference:0.30.0-lmi12.0.0-cpu-full"
PYTORCH = f"{REGISTRY}/pytorch-inference:2.6.0-cpu-py312"


def variant(name: str = "A", model: str = "m", **values: object) -> dict[str, object]:
    return {
        "VariantName": name,
        "ModelName": model,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
        **values,
    }


def llm(world, name: str = "m", **environment: str) -> None:
    container = {"Image": LLM, "Environment": environment}
    world.plane.models.create(
        {"ModelName": name, "ExecutionRoleArn": "role", "PrimaryContainer": container}
    )


def config(world, *variants: dict[str, object], name: str = "c", **request: object) -> None:
    world.plane.endpoint_configs.create(
        {"EndpointConfigName": name, "ProductionVariants": list(variants), **request}
    )


class TestModels:
    def test_describe_gives_back_what_create_was_given(self, world):
        world.model("Demo", KEY="value")
        found = world.plane.models.describe({"ModelName": "Demo"})
        assert found["ModelArn"] == f"{ARN}:model/demo"
        assert found["PrimaryContainer"]["Environment"] == {"KEY": "value"}
        assert found["CreationTime"] == datetime.fromtimestamp(world.now, UTC)

    def test_a_taken_name_is_refused_in_sagemakers_words(self, world):
        world.model("demo")
        with pytest.raises(ValidationException) as caught:
            world.model("Demo")
        assert caught.value.message == (f'Cannot create already existing model "{ARN}:model/demo".')

    @pytest.mark.parametrize("verb", ["describe", "delete"])
    def test_an_unknown_model_is_named(self, world, verb):
        with pytest.raises(ValidationException) as caught:
            getattr(world.plane.models, verb)({"ModelName": "ghost"})
        assert caught.value.message == f'Could not find model "{ARN}:model/ghost".'

    def test_a_deleted_models_name_and_tags_are_free_again(self, world):
        request = {
            "ModelName": "m",
            "ExecutionRoleArn": "role",
            "PrimaryContainer": {"Image": LLM},
            "Tags": [{"Key": "team", "Value": "blue"}],
        }
        world.plane.models.create(request)
        world.plane.models.delete({"ModelName": "m"})
        world.model("m")
        assert world.plane.tags.list({"ResourceArn": f"{ARN}:model/m"}) == {"Tags": []}

    def test_neither_and_both_kinds_of_container_are_refused(self, world):
        base = {"ModelName": "m", "ExecutionRoleArn": "role"}
        with pytest.raises(ValidationException, match="Neither"):
            world.plane.models.create(base)
        both = {"PrimaryContainer": {"Image": LLM}, "Containers": [{"Image": LLM}]}
        with pytest.raises(ValidationException, match="Both"):
            world.plane.models.create({**base, **both})


class TestLists:
    def test_newest_first_ten_a_page(self, world):
        for index in range(12):
            world.now += 1
            world.model(f"m{index:02d}")
        page = world.plane.models.list({})
        assert [item["ModelName"] for item in page["Models"]][:2] == ["m11", "m10"]
        assert len(page["Models"]) == 10
        rest = world.plane.models.list({"NextToken": page["NextToken"]})
        assert [item["ModelName"] for item in rest["Models"]] == ["m01", "m00"]
        assert "NextToken" not in rest

    @settings(
        max_examples=15,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        same_moment=st.booleans(),
        by=st.sampled_from(["Name", "CreationTime"]),
        order=st.sampled_from(["Ascending", "Descending"]),
        size=st.integers(1, 4),
        between=st.lists(
            st.tuples(st.sampled_from(["add", "delete"]), st.integers(0, 8)), max_size=4
        ),
    )
    def test_pages_show_what_stays_exactly_once(
        self, make_world, same_moment, by, order, size, between
    ):
        """Whatever is created or deleted between two pages."""
        world = make_world()
        names = [f"m{index}" for index in range(9)]
        for name in names:
            world.now += 0 if same_moment else 1
            world.model(name)
        seen, gone, token = [], set(), None
        pending = list(between)
        while True:
            request = {"SortBy": by, "SortOrder": order, "MaxResults": size}
            page = world.plane.models.list(request | ({"NextToken": token} if token else {}))
            seen += [item["ModelName"] for item in page["Models"]]
            token = page.get("NextToken")
            if token is None:
                break
            if pending:
                action, index = pending.pop()
                if action == "add":
                    world.model(f"m{index}-new{len(pending)}")
                elif names[index] not in gone:
                    world.plane.models.delete({"ModelName": names[index]})
                    gone.add(names[index])
        old = [name for name in seen if name in names]
        assert len(seen) == len(set(seen))
        assert set(old) >= set(names) - gone
        assert old == sorted(old, reverse=(order == "Descending"))

    def test_filters(self, world):
        for name in ("Alpha-one", "beta", "alpha_two", "a%b"):
            world.now += 10
            world.model(name.replace("_", "-").replace("%", "-"))
        listed = world.plane.models.list({"NameContains": "ALPHA"})["Models"]
        assert [item["ModelName"] for item in listed] == ["alpha-two", "Alpha-one"]
        assert world.plane.models.list({"NameContains": "%"})["Models"] == []
        second = datetime.fromtimestamp(world.now - 20, UTC)
        after = world.plane.models.list({"CreationTimeAfter": second})["Models"]
        before = world.plane.models.list({"CreationTimeBefore": second})["Models"]
        assert [item["ModelName"] for item in after] == ["a-b", "alpha-two", "beta"]
        assert [item["ModelName"] for item in before] == ["Alpha-one"]

    def test_endpoints_are_filtered_by_status(self, world):
        world.deploy("up")
        world.deploy("down", LOAD="fails")
        failed = world.plane.endpoints.list({"StatusEquals": "Failed"})["Endpoints"]
        assert [item["EndpointName"] for item in failed] == ["down"]
        everything = world.plane.endpoints.list({"SortBy": "Status", "SortOrder": "Ascending"})
        assert [item["EndpointName"] for item in everything["Endpoints"]] == ["down", "up"]

    @pytest.mark.parametrize("token", ["x", "", "bm90IGpzb24", "WzEsMl0"])
    def test_a_token_that_is_not_ours_is_refused(self, world, token):
        with pytest.raises(ValidationException, match="NextToken"):
            world.plane.models.list({"NextToken": token})

    def test_a_token_of_another_order_is_refused(self, world):
        for name in ("a", "b"):
            world.model(name)
        token = world.plane.models.list({"MaxResults": 1})["NextToken"]
        with pytest.raises(ValidationException, match="another SortBy"):
            world.plane.models.list({"NextToken": token, "SortBy": "Name"})


class TestEndpointConfigs:
    def test_describe(self, world):
        world.model("m")
        config(world, variant(), DataCaptureConfig={"EnableCapture": True})
        found = world.plane.endpoint_configs.describe({"EndpointConfigName": "c"})
        assert found["EndpointConfigArn"] == f"{ARN}:endpoint-config/c"
        assert found["ProductionVariants"][0]["InitialVariantWeight"] == 1.0
        assert found["DataCaptureConfig"] == {"EnableCapture": True}

    @pytest.mark.parametrize(
        ("variants", "request_", "words"),
        [
            ([variant(model="ghost")], {}, "Could not find model"),
            ([variant(), variant()], {}, "must be unique"),
            ([variant(InitialVariantWeight=0.0)], {}, "at least one must take traffic"),
            ([variant(InstanceType=None)], {}, "lacks InstanceType"),
            (
                [variant(ServerlessConfig={"MemorySizeInMB": 2048, "MaxConcurrency": 2})],
                {},
                "either ServerlessConfig or instance fields",
            ),
            (
                [variant()],
                {"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "/tmp/x"}}},
                "no S3 URI",
            ),
            ([variant()], {"ShadowProductionVariants": [variant("B")]}, "not supported"),
        ],
    )
    def test_refusals(self, world, variants, request_, words):
        world.model("m")
        with pytest.raises(ValidationException, match=words):
            config(world, *variants, **request_)

    @pytest.mark.parametrize(
        ("given", "nearest"),
        [
            ("ml.nope", "ml.m5.large, ml.m5.xlarge"),
            ("m7i.xlarge", "ml.m7i.xlarge"),
            ("ml.g6e.xlrge", "ml.g6e.xlarge"),
        ],
    )
    def test_an_unknown_instance_type_with_the_nearest(self, world, given, nearest):
        world.model("m")
        with pytest.raises(ValidationException) as caught:
            config(world, variant(), variant("B", InstanceType=given))
        assert caught.value.message.startswith(
            f"1 validation error detected: Value '{given}' at "
            "'productionVariants.2.member.instanceType' failed to satisfy constraint: "
            f"Member must satisfy enum value set: [{nearest}"
        )
        assert len(caught.value.message) < 300
        assert world.plane.endpoint_configs.list({})["EndpointConfigs"] == []


class TestCreateEndpointRefuses:
    def refuse(self, world, words: str, error: type = ValidationException) -> None:
        with pytest.raises(error) as caught:
            world.endpoint("e", "c")
        assert words in str(caught.value)
        with pytest.raises(ValidationException, match="Could not find endpoint"):
            world.describe("e")

    def test_an_unknown_config(self, world):
        self.refuse(world, f'Could not find endpoint configuration "{ARN}:endpoint-config/c".')

    def test_a_taken_name(self, world):
        world.deploy("e")
        with pytest.raises(ValidationException, match="Cannot create already existing endpoint"):
            world.endpoint("e", "e")

    def test_an_unknown_image_with_the_known_ones(self, world):
        container = {"Image": "registry.example/xgboost:1"}
        world.plane.models.create(
            {"ModelName": "m", "ExecutionRoleArn": "r", "PrimaryContainer": container}
        )
        config(world, variant())
        self.refuse(world, "djl-inference")

    def test_neuron_types_that_nobody_simulates_with_the_reason(self, world):
        llm(world, HF_MODEL_ID="smollm2-135m-instruct")
        config(world, variant(InstanceType="ml.inf1.xlarge"))
        self.refuse(world, "NeuronCore-v1 of Inferentia1 has no programs of this compiler")

    def test_containers_that_serve_no_language_model_on_neuron_types(self, world):
        world.model("m")
        config(world, variant(InstanceType="ml.inf2.xlarge"))
        self.refuse(world, "runs language models alone, on simulated cores")

    def test_gpu_types_where_the_owner_is_strict(self, make_world):
        world = make_world(settings=Settings(strict_instance_types=True))
        world.model("m")
        config(world, variant(InstanceType="ml.g5.xlarge"))
        self.refuse(world, "strict_instance_types")

    def test_a_model_beyond_a_derived_instance_type_with_where_its_size_is_from(self, world):
        llm(world, HF_MODEL_ID="llama-3-1-8b-instruct")
        config(world, variant(InstanceType="ml.c7g.large"))
        self.refuse(world, "ml.c7g.large has 4.0 GiB by the usual ratio of its family")

    def test_an_unknown_zoo_id_with_the_nearest(self, world):
        llm(world, HF_MODEL_ID="smollm2-135m-instrct")
        config(world, variant())
        self.refuse(world, "Did you mean 'smollm2-135m-instruct'?")

    def test_a_model_that_the_machine_can_never_hold_with_the_numbers(self, make_world):
        world = make_world(memory_bytes=6 * GIB)
        llm(world, HF_MODEL_ID="llama-3-1-8b-instruct")
        config(world, variant(InstanceType="ml.g5.2xlarge"))
        self.refuse(world, "this machine has 6.0 GiB")

    def test_a_model_that_the_instance_type_cannot_hold_with_the_numbers(self, world):
        llm(world, HF_MODEL_ID="llama-3-1-8b-instruct")
        config(world, variant())
        self.refuse(world, "ml.m5.large has 8.0 GiB")

    def test_more_replicas_than_may_ever_run(self, world):
        world.model("m")
        config(world, variant(InitialInstanceCount=17))
        self.refuse(world, "at most 16", ResourceLimitExceeded)

    def test_user_code_where_nothing_can_confine_it(self, make_world):
        world = make_world(sandbox_problem="bubblewrap: not installed")
        world.model("m")
        config(world, variant())
        self.refuse(world, "bubblewrap: not installed")

    def test_an_llm_container_that_names_no_model(self, world):
        llm(world)
        config(world, variant())
        self.refuse(world, "set HF_MODEL_ID")


class TestResolution:
    def planned(self, world):
        with world.databases[-1].read() as connection:
            from ridgeline_service.store.endpoints import all_deployments

            return all_deployments(connection)[0].variants[0]

    @pytest.mark.parametrize(
        "model_id", ["smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"]
    )
    def test_zoo_ids_and_the_hub_ids_that_cards_name_are_the_zoos(self, world, model_id):
        llm(world, HF_MODEL_ID=model_id)
        config(world, variant())
        world.endpoint("e", "c")
        assert self.planned(world).zoo_id == "smollm2-135m-instruct"

    def test_jumpstarts_artifact_is_the_zoos(self, world):
        uri = "s3://jumpstart-cache-prod-us-east-1/ridgeline/smollm2-135m-instruct/v1.0.0/model/"
        source = {"S3Uri": uri, "S3DataType": "S3Prefix", "CompressionType": "None"}
        world.plane.models.create(
            {
                "ModelName": "m",
                "ExecutionRoleArn": "r",
                "PrimaryContainer": {
                    "Image": LLM,
                    "Environment": {"HF_MODEL_ID": "/opt/ml/model"},
                    "ModelDataSource": {"S3DataSource": source},
                },
            }
        )
        config(world, variant(InstanceType="ml.g5.xlarge"))
        world.endpoint("e", "c")
        assert self.planned(world).zoo_id == "smollm2-135m-instruct"

    def test_gpu_types_run_on_the_cpu_with_a_warning(self, world):
        world.model("m")
        config(world, variant(InstanceType="ml.g5.xlarge"))
        world.endpoint("e", "c")
        tags = world.plane.tags.list({"ResourceArn": f"{ARN}:endpoint/e"})["Tags"]
        assert "runs on the CPU" in tags[0]["Value"]
        changes = [event["change"] for event in world.plane.events.list(resource="endpoint/e")]
        assert "Warning" in changes
        world.settle()
        assert any("runs on the CPU" in t for t in world.plane.endpoints.stages("e")["log_tail"])

    @pytest.mark.parametrize("name", ["ml.m8g.medium", "ml.g6e.xlarge", "ml.dl1.24xlarge"])
    def test_types_without_a_profile_of_their_own_can_be_deployed(self, world, name):
        world.model("m")
        config(world, variant(InstanceType=name))
        world.endpoint("e", "c")
        world.settle()
        assert world.status("e") == "InService"

    def test_a_serverless_variant_is_one_replica_that_declares_its_memory(self, world):
        world.model("m")
        serverless = {"MemorySizeInMB": 2048, "MaxConcurrency": 5}
        config(world, {"VariantName": "A", "ModelName": "m", "ServerlessConfig": serverless})
        world.endpoint("e", "c")
        planned = self.planned(world)
        assert (planned.count, planned.memory_bytes) == (1, 2 * GIB)
        world.settle()
        shown = world.describe("e")["ProductionVariants"][0]
        assert shown["CurrentServerlessConfig"] == serverless
        assert "CurrentInstanceCount" not in shown


class TestUpdateWeightsAndCapacitiesRefuses:
    def refuse(self, world, *wanted: dict[str, object]) -> ValidationException:
        with pytest.raises(ValidationException) as caught:
            world.plane.endpoints.update_weights_and_capacities(
                {"EndpointName": "e", "DesiredWeightsAndCapacities": list(wanted)}
            )
        return caught.value

    def test_a_variant_given_twice(self, world):
        world.deploy("e")
        error = self.refuse(
            world,
            {"VariantName": "A", "DesiredWeight": 1.0},
            {"VariantName": "A", "DesiredInstanceCount": 2},
        )
        assert error.message == 'Variant "A" is given 2 times in DesiredWeightsAndCapacities.'
        assert world.status("e") == "InService"

    def test_a_variant_of_which_nothing_is_wanted(self, world):
        world.deploy("e")
        error = self.refuse(world, {"VariantName": "A"})
        assert error.message == ('Variant "A" has neither DesiredWeight nor DesiredInstanceCount.')
        assert world.status("e") == "InService"

    def test_a_failed_endpoint_with_what_to_do(self, world):
        world.deploy("e", LOAD="fails")
        error = self.refuse(world, {"VariantName": "A", "DesiredWeight": 1.0})
        assert error.message.endswith("its status is Failed.")
        assert "in-progress" not in error.message
        assert "UpdateEndpoint" in error.hint
        assert "delete" in error.hint


class TestTags:
    def test_add_list_delete(self, world):
        world.model("m")
        arn = f"{ARN}:model/m"
        world.plane.tags.add(
            {"ResourceArn": arn, "Tags": [{"Key": "b", "Value": "1"}, {"Key": "a", "Value": "2"}]}
        )
        added = world.plane.tags.add({"ResourceArn": arn, "Tags": [{"Key": "b", "Value": "3"}]})
        assert added["Tags"] == [{"Key": "a", "Value": "2"}, {"Key": "b", "Value": "3"}]
        world.plane.tags.delete({"ResourceArn": arn, "TagKeys": ["a", "ghost"]})
        assert world.plane.tags.list({"ResourceArn": arn})["Tags"] == [{"Key": "b", "Value": "3"}]

    @pytest.mark.parametrize(
        ("arn", "words"),
        [
            (f"{ARN}:model/ghost", "Could not find model"),
            (f"{ARN}:endpoint/ghost", "Could not find endpoint"),
            (f"{ARN}:training-job/x", "Could not find training job"),
            (f"{ARN}:pipeline/x", "have no tags here"),
            ("arn:aws:s3:::bucket", "Invalid ARN"),
        ],
    )
    def test_tags_of_nothing(self, world, arn, words):
        with pytest.raises(ValidationException, match=words):
            world.plane.tags.list({"ResourceArn": arn})

    @pytest.mark.parametrize("key", ["aws:x", "AWS:x", "Aws:"])
    def test_keys_under_awss_own_prefix_are_refused(self, world, key):
        world.model("m")
        arn, tags = f"{ARN}:model/m", [{"Key": "aws", "Value": "1"}, {"Key": key, "Value": "2"}]
        with pytest.raises(ValidationException) as caught:
            world.plane.tags.add({"ResourceArn": arn, "Tags": tags})
        assert caught.value.message == (
            f"1 validation error detected: Value '{key}' at 'tags.2.member.key' failed to satisfy "
            "constraint: aws: prefixed tag key names are not allowed for external use."
        )
        with pytest.raises(ValidationException, match="aws: prefixed"):
            config(world, variant(), Tags=tags)
        assert world.plane.endpoint_configs.list({})["EndpointConfigs"] == []
        assert world.plane.tags.list({"ResourceArn": arn})["Tags"] == []

    def test_fifty_tags_and_no_more(self, world):
        world.model("m")
        tags = [{"Key": f"k{index}", "Value": "v"} for index in range(51)]
        with pytest.raises(ValidationException, match="51 tags"):
            world.plane.tags.add({"ResourceArn": f"{ARN}:model/m", "Tags": tags})
        assert world.plane.tags.list({"ResourceArn": f"{ARN}:model/m"})["Tags"] == []


class TestKeys:
    def test_a_key_works_from_the_moment_it_is_given_out_until_it_is_deleted(self, world):
        key = world.plane.keys.create("laptop")
        assert key["access_key_id"] in {c.access_key_id for c in world.snapshot().credentials}
        digest = hashlib.sha256(key["api_key"].encode()).hexdigest()
        assert digest in {known.sha256 for known in world.snapshot().api_keys}
        world.plane.keys.delete(key["key_id"])
        assert digest not in {known.sha256 for known in world.snapshot().api_keys}
        assert len(world.snapshot().credentials) == 1, "the root key stays"

    def test_secrets_are_never_listed_and_bearer_keys_never_stored(self, world):
        key = world.plane.keys.create("laptop")
        (listed,) = world.plane.keys.list()
        limits = {"requests_per_minute", "tokens_per_minute"}
        assert set(listed) == {"key_id", "name", "access_key_id", "created_at"} | limits
        stored = b"".join(path.read_bytes() for path in world.data_dir.database.parent.iterdir())
        assert key["api_key"].encode() not in stored

    def test_limits_of_a_key_are_published_with_both_of_its_names(self, world):
        world.plane.keys.create("free")
        key = world.plane.keys.create("ci", requests_per_minute=60, tokens_per_minute=9000)
        (limits,) = world.snapshot().limits
        assert limits == KeyLimits(key["key_id"], key["access_key_id"], 60, 9000)
        assert world.plane.keys.list()[1]["tokens_per_minute"] == 9000

    def test_deleting_an_unknown_key(self, world):
        with pytest.raises(NotFound):
            world.plane.keys.delete("ghost")


def test_the_snapshots_version_grows_and_is_not_spent_on_nothing(world):
    first = world.snapshot().version
    world.plane.keys.create("one")
    second = world.snapshot().version
    assert second > first
    world.model("m")
    world.tick()
    assert world.snapshot().version == second


def test_the_snapshot_is_private(world):
    assert world.data_dir.snapshot.stat().st_mode & 0o777 == 0o600
