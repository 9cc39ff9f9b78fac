"""Any PyTorch module as an operation list, by `torch.export`; layers that shard themselves."""

from ridgeline_backends.neuron.export.compiled import (
    CompiledModule,
    compile_module,
    trace_module,
)
from ridgeline_backends.neuron.export.errors import (
    CompileError,
    DynamicShape,
    IntegerProduct,
    InvalidInput,
    InvalidWeights,
    NotGathered,
    NotSharded,
    UnsupportedOperator,
)
from ridgeline_backends.neuron.export.layers import (
    ColumnParallelLinear,
    ParallelEmbedding,
    RowParallelLinear,
)
from ridgeline_backends.neuron.export.operators import supported_operators
from ridgeline_backends.neuron.export.parallel_state import (
    get_tensor_model_parallel_size,
    tensor_model_parallel,
)

__all__ = [
    "ColumnParallelLinear",
    "CompileError",
    "CompiledModule",
    "DynamicShape",
    "IntegerProduct",
    "InvalidInput",
    "InvalidWeights",
    "NotGathered",
    "NotSharded",
    "ParallelEmbedding",
    "RowParallelLinear",
    "UnsupportedOperator",
    "compile_module",
    "get_tensor_model_parallel_size",
    "supported_operators",
    "tensor_model_parallel",
    "trace_module",
]
