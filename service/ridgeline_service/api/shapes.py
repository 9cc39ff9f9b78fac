"""The service models that operations are validated and serialised from: botocore's own, loaded
when first needed and kept. Knows which operations each service answers, not what they do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel, Shape

from ridgeline.errors import did_you_mean
from ridgeline_service.api.absent import EMPTY_LISTS, advice
from ridgeline_service.errors import UnknownOperation

_MOST_NAMES = 15


@dataclass(frozen=True)
class Service:
    """One AWS service as we serve it.

    ``scope`` is the service name of the SigV4 credential scope; ``model`` is botocore's folder;
    ``target`` is the prefix of X-Amz-Target (and the name in a smithy path), empty where there is
    none; ``validation_code`` is the error code that this service answers bad input with.
    """

    scope: str
    model: str
    target: str
    validation_code: str
    operations: tuple[str, ...]

    @cached_property
    def botocore(self) -> ServiceModel:
        return ServiceModel(Loader().load_service_model(self.model, "service-2"), self.model)

    def operation(self, name: str) -> OperationModel:
        """The model of a supported operation. Raises UnknownOperation for any other name."""
        if name in self.operations:
            return self.botocore.operation_model(name)
        if name in self.botocore.operation_names:
            raise UnknownOperation(
                f"{self.botocore.service_id} operation {name} is not supported by Ridgeline.",
                hint=(advice(name) if self is SAGEMAKER else "") or self.what_is_supported,
            )
        near = did_you_mean(name[:100], self.operations)
        raise UnknownOperation(
            f"{self.botocore.service_id} has no operation {name[:100]!r}.",
            hint=near if near.startswith("Did") else self.what_is_supported,
        )

    @property
    def what_is_supported(self) -> str:
        """For a message: the operations, or where they are listed if those are many."""
        if len(self.operations) > _MOST_NAMES:
            return "GET /api/info lists the operations that are."
        return f"Supported operations of this service: {', '.join(self.operations)}."

    @property
    def protocols(self) -> tuple[str, ...]:
        return tuple(self.botocore.metadata["protocols"])

    @property
    def xml_namespace(self) -> str:
        return str(self.botocore.metadata.get("xmlNamespace", ""))

    @property
    def json_version(self) -> str:
        return str(self.botocore.metadata.get("jsonVersion", "1.1"))

    @property
    def is_query_compatible(self) -> bool:
        """Whether JSON and CBOR errors also carry the code of the older query protocol."""
        return "awsQueryCompatible" in self.botocore.metadata

    def query_code(self, code: str) -> str:
        """The code by which the query protocol names an error that the model calls ``code``."""
        return self._query_codes.get(code, code)

    @cached_property
    def _query_codes(self) -> dict[str, str]:
        return {
            shape.name: str(shape.metadata["error"]["code"])
            for shape in self.botocore.error_shapes
            if shape.metadata.get("error", {}).get("code")
        }


SAGEMAKER = Service(
    scope="sagemaker",
    model="sagemaker",
    target="SageMaker",
    validation_code="ValidationException",
    operations=(
        "CreateModel",
        "DescribeModel",
        "ListModels",
        "DeleteModel",
        "CreateEndpointConfig",
        "DescribeEndpointConfig",
        "ListEndpointConfigs",
        "DeleteEndpointConfig",
        "CreateEndpoint",
        "DescribeEndpoint",
        "ListEndpoints",
        "DeleteEndpoint",
        "UpdateEndpoint",
        "UpdateEndpointWeightsAndCapacities",
        "CreateTrainingJob",
        "DescribeTrainingJob",
        "ListTrainingJobs",
        "StopTrainingJob",
        "UpdateTrainingJob",
        "DeleteTrainingJob",
        "CreateProcessingJob",
        "DescribeProcessingJob",
        "ListProcessingJobs",
        "StopProcessingJob",
        "DeleteProcessingJob",
        "CreateTransformJob",
        "DescribeTransformJob",
        "ListTransformJobs",
        "StopTransformJob",
        "CreateHyperParameterTuningJob",
        "DescribeHyperParameterTuningJob",
        "ListHyperParameterTuningJobs",
        "StopHyperParameterTuningJob",
        "DeleteHyperParameterTuningJob",
        "ListTrainingJobsForHyperParameterTuningJob",
        "CreateCompilationJob",
        "DescribeCompilationJob",
        "ListCompilationJobs",
        "StopCompilationJob",
        "DeleteCompilationJob",
        "CreateInferenceRecommendationsJob",
        "DescribeInferenceRecommendationsJob",
        "ListInferenceRecommendationsJobs",
        "StopInferenceRecommendationsJob",
        "ListInferenceRecommendationsJobSteps",
        "AddTags",
        "ListTags",
        "DeleteTags",
        *EMPTY_LISTS,
    ),
)
STS = Service(
    "sts", "sts", "", "ValidationError", ("GetCallerIdentity", "AssumeRole", "GetSessionToken")
)
IAM = Service(
    scope="iam",
    model="iam",
    target="",
    validation_code="ValidationError",
    operations=("GetRole", "SimulatePrincipalPolicy", "ListAttachedRolePolicies"),
)
LOGS = Service(
    scope="logs",
    model="logs",
    target="Logs_20140328",
    validation_code="InvalidParameterException",
    operations=(
        "DescribeLogGroups",
        "DescribeLogStreams",
        "GetLogEvents",
        "FilterLogEvents",
        "PutRetentionPolicy",
        "DeleteRetentionPolicy",
        "DeleteLogGroup",
        "DeleteLogStream",
    ),
)
CLOUDWATCH = Service(
    scope="monitoring",
    model="cloudwatch",
    target="GraniteServiceVersion20100801",
    validation_code="InvalidParameterValueException",
    operations=(
        "PutMetricData",
        "GetMetricData",
        "GetMetricStatistics",
        "ListMetrics",
        "PutMetricAlarm",
        "DescribeAlarms",
        "DescribeAlarmsForMetric",
        "DescribeAlarmHistory",
        "DeleteAlarms",
        "SetAlarmState",
        "EnableAlarmActions",
        "DisableAlarmActions",
        "TagResource",
        "UntagResource",
        "ListTagsForResource",
    ),
)
AUTOSCALING = Service(
    scope="application-autoscaling",
    model="application-autoscaling",
    target="AnyScaleFrontendService",
    validation_code="ValidationException",
    operations=(
        "RegisterScalableTarget",
        "DescribeScalableTargets",
        "DeregisterScalableTarget",
        "PutScalingPolicy",
        "DescribeScalingPolicies",
        "DeleteScalingPolicy",
        "DescribeScalingActivities",
        "PutScheduledAction",
        "DescribeScheduledActions",
        "DeleteScheduledAction",
        "TagResource",
        "UntagResource",
        "ListTagsForResource",
    ),
)

SERVICES = (SAGEMAKER, STS, IAM, LOGS, CLOUDWATCH, AUTOSCALING)
BY_SCOPE = {service.scope: service for service in SERVICES}
BY_TARGET = {service.target: service for service in SERVICES if service.target}


def supported_operations(services: Iterable[Service] = SERVICES) -> dict[str, list[str]]:
    """Operation names by SigV4 service name, for humans and for error messages."""
    return {service.scope: list(service.operations) for service in services}


def wire_name(shape: Shape, default: str) -> str:
    """The name of a member on the wire, where the model gives it another."""
    return str(shape.serialization.get("name", default))
