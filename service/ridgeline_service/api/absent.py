"""What SageMaker has and this service has not: what to do instead, and the lists that are truly
empty for it. Knows names of operations alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from botocore.loaders import Loader
from botocore.model import ServiceModel


@dataclass(frozen=True)
class Family:
    """Operations whose names hold one of ``nouns``. ``lists`` need no resource to ask about: with
    none of these resources here, they have nothing to name."""

    nouns: tuple[str, ...]
    advice: str
    lists: tuple[str, ...] = ()


# The first that fits counts.
_FAMILIES = (
    Family(
        ("Pipeline",),
        "There are no pipelines: start their steps as jobs, each when the one before has ended.",
        ("ListPipelines",),
    ),
    Family(
        ("InferenceExperiment",),
        "There are no shadow tests: give an endpoint two variants and compare their metrics.",
        ("ListInferenceExperiments",),
    ),
    Family(
        ("Mlflow",),
        "There is no MLflow: run a server of your own, and let scripts log to it.",
        ("ListMlflowTrackingServers",),
    ),
    Family(
        ("Experiment", "Trial", "BatchPutMetrics", "BatchGetMetrics"),
        "There are no experiments: log to a tracker of your own. A job's MetricDefinitions become "
        "metrics in its Describe and in CloudWatch.",
        ("ListExperiments", "ListTrials", "ListTrialComponents"),
    ),
    Family(
        ("Artifact", "Action", "Context", "Association", "Lineage"),
        "Lineage is not recorded: the Describe of a job or model names what it was made from.",
        ("ListArtifacts", "ListActions", "ListContexts", "ListAssociations"),
    ),
    Family(
        ("ModelPackage", "ModelCard", "Algorithm"),
        "There is no model registry: keep artifacts in S3 under names of your own, and give one "
        "to CreateModel as its ModelDataUrl.",
        ("ListModelPackageGroups", "ListModelPackages", "ListModelCards", "ListAlgorithms"),
    ),
    Family(
        ("FeatureGroup", "FeatureMetadata", "Record"),
        "There is no feature store: keep features in S3, and give them to jobs as a channel.",
        ("ListFeatureGroups",),
    ),
    Family(
        ("Hub",),
        "There are no hubs: deploy a model by its JumpStart id; `ridgeline zoo ls` names them.",
    ),
    Family(
        ("Monitoring", "JobDefinition"),
        "There is no model monitor: set alarms on the endpoint's metrics in CloudWatch.",
        (
            "ListMonitoringSchedules",
            "ListMonitoringExecutions",
            "ListMonitoringAlertHistory",
            "ListDataQualityJobDefinitions",
            "ListModelBiasJobDefinitions",
            "ListModelExplainabilityJobDefinitions",
            "ListModelQualityJobDefinitions",
        ),
    ),
    Family(
        ("InferenceComponent", "InferenceRouter"),
        "There are no inference components: give each model a variant or an endpoint of its own.",
        ("ListInferenceComponents",),
    ),
    Family(
        ("AutoML",),
        "There is no AutoML: search with CreateHyperParameterTuningJob and a script of yours.",
        ("ListAutoMLJobs",),
    ),
    Family(
        ("Label", "Work", "Human", "FlowDefinition"),
        "There is no labelling: label elsewhere, and put the data into S3.",
        (
            "ListLabelingJobs",
            "ListWorkteams",
            "ListWorkforces",
            "ListSubscribedWorkteams",
            "ListHumanTaskUis",
            "ListFlowDefinitions",
        ),
    ),
    Family(
        ("Cluster", "ComputeQuota", "TrainingPlan"),
        "There are no clusters: a training job starts as many instances as InstanceCount says.",
        ("ListClusters", "ListClusterSchedulerConfigs", "ListComputeQuotas", "ListTrainingPlans"),
    ),
    Family(
        ("Device", "Edge", "Deployments", "Heartbeat"),
        "There are no edge devices: serve the model by an endpoint.",
        ("ListDevices", "ListDeviceFleets", "ListEdgeDeploymentPlans", "ListEdgePackagingJobs"),
    ),
    Family(
        (
            "Notebook",
            "Domain",
            "UserProfile",
            "Space",
            "App",
            "Studio",
            "CodeRepository",
            "CodeRepositories",
            "Project",
            "Image",
        ),
        "There is no Studio and there are no notebook instances: work where you like, with what "
        "`ridgeline env` prints.",
        (
            "ListNotebookInstances",
            "ListNotebookInstanceLifecycleConfigs",
            "ListDomains",
            "ListUserProfiles",
            "ListSpaces",
            "ListApps",
            "ListAppImageConfigs",
            "ListStudioLifecycleConfigs",
            "ListCodeRepositories",
            "ListProjects",
            "ListImages",
        ),
    ),
    Family(
        ("Search",),
        "There is no search: the List operations filter by name, time and status.",
    ),
)
# Services of their own that sign as ``sagemaker`` and are told from it by their paths.
_SIGN_AS_SAGEMAKER = (
    "sagemaker-featurestore-runtime",
    "sagemaker-metrics",
    "sagemaker-edge",
    "sagemaker-a2i-runtime",
)

EMPTY_LISTS = tuple(name for family in _FAMILIES for name in family.lists)


def advice(operation: str) -> str:
    """What to do instead of ``operation``; empty where there is nothing better to say."""
    return next(
        (one.advice for one in _FAMILIES if any(noun in operation for noun in one.nouns)), ""
    )


def rest_operation(method: str, path: str) -> tuple[str, str] | None:
    """Service and operation of a request that signs as SageMaker and has an address of its own."""
    given = path.split("/")
    for service, operation, verb, wanted in _rest_operations():
        if verb == method and len(given) == len(wanted):
            pairs = zip(given, wanted, strict=True)
            if all(part == want or want.startswith("{") for part, want in pairs):
                return service, operation
    return None


@cache
def _rest_operations() -> list[tuple[str, str, str, list[str]]]:
    found = []
    for name in _SIGN_AS_SAGEMAKER:
        model = ServiceModel(Loader().load_service_model(name, "service-2"), name)
        for operation in model.operation_names:
            http = model.operation_model(operation).http
            path = http["requestUri"].split("/")
            found.append((str(model.service_id), operation, http["method"], path))
    return found
