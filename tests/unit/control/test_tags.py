"""Tags of resources, in AWS's words."""

from __future__ import annotations

import pytest

from ridgeline_service.errors import ValidationException

ARN = "arn:aws:sagemaker:us-east-1:123456789012"


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
            world.plane.endpoint_configs.create(
                {
                    "EndpointConfigName": "c",
                    "ProductionVariants": [
                        {
                            "VariantName": "A",
                            "ModelName": "m",
                            "InitialInstanceCount": 1,
                            "InstanceType": "ml.m5.large",
                        }
                    ],
                    "Tags": tags,
                }
            )
        assert world.plane.endpoint_configs.list({})["EndpointConfigs"] == []
        assert world.plane.tags.list({"ResourceArn": arn})["Tags"] == []

    def test_fifty_tags_and_no_more(self, world):
        world.model("m")
        tags = [{"Key": f"k{index}", "Value": "v"} for index in range(51)]
        with pytest.raises(ValidationException, match="51 tags"):
            world.plane.tags.add({"ResourceArn": f"{ARN}:model/m", "Tags": tags})
        assert world.plane.tags.list({"ResourceArn": f"{ARN}:model/m"})["Tags"] == []
