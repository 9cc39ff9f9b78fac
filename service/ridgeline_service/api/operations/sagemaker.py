"""SageMaker operations: names joined to the verbs of the control plane, and the lists of what
cannot be here, which are empty."""

from __future__ import annotations

from collections.abc import Callable

from ridgeline_service.api.absent import EMPTY_LISTS
from ridgeline_service.api.control_port import Control, Request, Response
from ridgeline_service.api.operations import Table, handlers
from ridgeline_service.api.shapes import SAGEMAKER


def table(control: Control) -> Table:
    verbs: dict[str, Callable[[Request], Response]] = {
        "CreateModel": control.models.create,
        "DescribeModel": control.models.describe,
        "ListModels": control.models.list,
        "DeleteModel": control.models.delete,
        "CreateEndpointConfig": control.endpoint_configs.create,
        "DescribeEndpointConfig": control.endpoint_configs.describe,
        "ListEndpointConfigs": control.endpoint_configs.list,
        "DeleteEndpointConfig": control.endpoint_configs.delete,
        "CreateEndpoint": control.endpoints.create,
        "DescribeEndpoint": control.endpoints.describe,
        "ListEndpoints": control.endpoints.list,
        "DeleteEndpoint": control.endpoints.delete,
        "UpdateEndpoint": control.endpoints.update,
        "UpdateEndpointWeightsAndCapacities": control.endpoints.update_weights_and_capacities,
        "CreateTrainingJob": control.training_jobs.create,
        "DescribeTrainingJob": control.training_jobs.describe,
        "ListTrainingJobs": control.training_jobs.list,
        "StopTrainingJob": control.training_jobs.stop,
        "UpdateTrainingJob": control.training_jobs.update,
        "DeleteTrainingJob": control.training_jobs.delete,
        "CreateProcessingJob": control.processing_jobs.create,
        "DescribeProcessingJob": control.processing_jobs.describe,
        "ListProcessingJobs": control.processing_jobs.list,
        "StopProcessingJob": control.processing_jobs.stop,
        "DeleteProcessingJob": control.processing_jobs.delete,
        "CreateTransformJob": control.transform_jobs.create,
        "DescribeTransformJob": control.transform_jobs.describe,
        "ListTransformJobs": control.transform_jobs.list,
        "StopTransformJob": control.transform_jobs.stop,
        "CreateHyperParameterTuningJob": control.tuning_jobs.create,
        "DescribeHyperParameterTuningJob": control.tuning_jobs.describe,
        "ListHyperParameterTuningJobs": control.tuning_jobs.list,
        "StopHyperParameterTuningJob": control.tuning_jobs.stop,
        "DeleteHyperParameterTuningJob": control.tuning_jobs.delete,
        "ListTrainingJobsForHyperParameterTuningJob": control.tuning_jobs.list_training_jobs,
        "CreateCompilationJob": control.compilation_jobs.create,
        "DescribeCompilationJob": control.compilation_jobs.describe,
        "ListCompilationJobs": control.compilation_jobs.list,
        "StopCompilationJob": control.compilation_jobs.stop,
        "DeleteCompilationJob": control.compilation_jobs.delete,
        "CreateInferenceRecommendationsJob": control.recommendations_jobs.create,
        "DescribeInferenceRecommendationsJob": control.recommendations_jobs.describe,
        "ListInferenceRecommendationsJobs": control.recommendations_jobs.list,
        "StopInferenceRecommendationsJob": control.recommendations_jobs.stop,
        "ListInferenceRecommendationsJobSteps": control.recommendations_jobs.list_steps,
        "AddTags": control.tags.add,
        "ListTags": control.tags.list,
        "DeleteTags": control.tags.delete,
    }
    return handlers(verbs | {name: _nothing(name) for name in EMPTY_LISTS})


def _nothing(name: str) -> Callable[[Request], Response]:
    """A list without entries, under the name that this operation gives it."""

    def answer(request: Request) -> Response:
        shape = SAGEMAKER.operation(name).output_shape
        members = shape.members.items() if shape is not None else ()
        return {member: [] for member, kind in members if kind.type_name == "list"}

    return answer
