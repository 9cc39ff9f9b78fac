"""Verbs as AWS's clients call them: names, refusals and their words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ridgeline_service.errors import ResourceLimitExceeded, ValidationException
from ridgeline_service.placement.machine import GIB
from ridgeline_service.settings import Settings

ARN = "arn:aws:sagemaker:us-east-1:123456789012"
REGISTRY = "763104351884.dkr.ecr.us-east-1.amazonaws.com"
LLM = f"{REGISTRY}/djl-inference:0.30.0-lmi12.0.0-cpu-full"


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


class TestEndpointConfigs:
    def test_describe(self, world):
        world.model("m")
        capture = {"EnableCapture": True, "DestinationS3Uri": "s3://kept/here"}
        config(world, variant(), DataCaptureConfig=capture)
        found = world.plane.endpoint_configs.describe({"EndpointConfigName": "c"})
        assert found["EndpointConfigArn"] == f"{ARN}:endpoint-config/c"
        assert found["ProductionVariants"][0]["InitialVariantWeight"] == 1.0
        assert found["DataCaptureConfig"] == capture

    @pytest.mark.parametrize(
        ("variants", "request_", "words"),
        [
            ([variant(model="ghost")], {}, "Could not find model"),
            ([variant(), variant()], {}, "must be unique"),
            (
                [variant()],
                {"DataCaptureConfig": {"DestinationS3Uri": "https://b/c"}},
                "which is no S3 URI",
            ),
            ([variant()], {"ExplainerConfig": {"x": 1}}, "ExplainerConfig is not supported"),
            (
                [variant(ManagedInstanceScaling={"Status": "ENABLED"})],
                {},
                "ManagedInstanceScaling, which is not supported",
            ),
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
            (
                [variant()],
                {
                    "AsyncInferenceConfig": {
                        "OutputConfig": {
                            "S3OutputPath": "s3://b/out",
                            "NotificationConfig": {"SuccessTopic": "arn:aws:sns:x:1:done"},
                        }
                    }
                },
                "(?s)NotificationConfig is not supported.*notify nobody.*OutputLocation",
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
