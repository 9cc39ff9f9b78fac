"""What a replica is given: memory, cores, its environment."""

from __future__ import annotations

from ridgeline_service.placement.machine import GIB


class TestMemory:
    def spec(self, world):
        (process,) = world.launcher.processes.values()
        return process.spec

    def test_a_replica_may_use_what_its_instance_type_has(self, world):
        world.deploy("e")
        assert self.spec(world).memory_bytes == 8 * GIB

    def test_what_the_container_declares_is_its_limit(self, world):
        world.deploy("e", RIDGELINE_MEMORY_MB="3072")
        assert self.spec(world).memory_bytes == 3 * GIB

    def test_a_serverless_variant_may_use_its_memory_size(self, world):
        world.model("e")
        world.plane.endpoint_configs.create(
            {
                "EndpointConfigName": "e",
                "ProductionVariants": [
                    {
                        "VariantName": "A",
                        "ModelName": "e",
                        "ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 1},
                    }
                ],
            }
        )
        world.endpoint("e", "e")
        world.settle()
        assert self.spec(world).memory_bytes == 2 * GIB

    def test_a_replica_that_dies_of_it_says_so_and_is_not_tried_again(self, world):
        world.model("e", DIES_AFTER="1", SAYS="MemoryError: Unable to allocate 9 GiB")
        world.config("e", "e")
        world.endpoint("e", "e")
        world.settle()
        described = world.describe("e")
        assert described["EndpointStatus"] == "Failed"
        assert described["FailureReason"] == (
            "The model server ran out of memory: it may use 8.0 GiB; it exited with status 1."
            "\nLast log lines:\nMemoryError: Unable to allocate 9 GiB"
        )
        assert world.launcher.started == 1
        assert "instance type" in world.plane.endpoints.stages("e")["hint"]


class TestCores:
    def threads(self, world):
        return [
            process.spec.environment.get("RIDGELINE_THREADS")
            for process in world.launcher.processes.values()
        ]

    def test_a_lone_replica_has_all_cores(self, world):
        world.deploy("e")
        assert self.threads(world) == [None]

    def test_replicas_that_start_together_share_them(self, make_world):
        world = make_world(cores=8)
        world.deploy("e", count=3)
        assert self.threads(world) == ["3", "3", "3"]

    def test_an_update_of_one_replica_leaves_all_cores_to_its_successor(self, world):
        world.deploy("e")
        world.model("m2")
        world.config("c2", "m2")
        world.update("e", "c2")
        world.settle()
        assert self.threads(world) == [None]

    def test_the_users_own_number_counts(self, world):
        world.deploy("e", count=2, RIDGELINE_THREADS="7")
        assert self.threads(world) == ["7", "7"]


def test_only_our_model_server_is_told_where_traces_go(world, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "all")
    image = "ghcr.io/huggingface/text-generation-inference:3.0"
    environment = {"HF_MODEL_ID": "tiny-llama-seeded", "OTEL_SERVICE_NAME": "mine"}
    container = {"Image": image, "Environment": environment}
    model = {"ModelName": "m", "ExecutionRoleArn": world.settings.role_arn}
    world.plane.models.create({**model, "PrimaryContainer": container})
    world.config("c", "m")
    world.endpoint("e", "c")
    world.deploy("framework")
    world.settle()
    ours, theirs = (
        {name: v for name, v in process.spec.environment.items() if name.startswith("OTEL_")}
        for process in world.launcher.processes.values()
    )
    assert ours == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
        "OTEL_SERVICE_NAME": "mine",
    }
    assert theirs == {}


def test_a_language_models_server_is_told_its_flavour_and_may_reserve_kv_memory(world):
    world.plane.models.create(
        {
            "ModelName": "m",
            "ExecutionRoleArn": world.settings.role_arn,
            "PrimaryContainer": {
                "Image": "ghcr.io/huggingface/text-generation-inference:3.0",
                "Environment": {"HF_MODEL_ID": "tiny-llama-seeded"},
            },
        }
    )
    world.config("c", "m")
    world.endpoint("e", "c")
    world.settle()
    (process,) = world.launcher.processes.values()
    assert process.spec.environment["RIDGELINE_IMAGE_FLAVOUR"] == "tgi"
    assert process.spec.memory_bytes == (8 + 1) * GIB
