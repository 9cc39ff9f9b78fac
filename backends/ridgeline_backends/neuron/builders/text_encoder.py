"""The program of a text encoder of `models.encoder_config`: the one that is executed.

One call reads `batch` texts of up to `bucket` tokens and gives a vector of each, pooled on the
device, or a score. Every core has its heads and its columns of the MLP; two sums a layer join them,
and what follows a sum is the same on all. Tables are on every core as a whole. Attention is over
the whole bucket, with what fills a text up hidden. Imports no torch.
"""

from __future__ import annotations

from typing import Literal

from ridgeline_backends.models.encoder_config import EncoderConfig
from ridgeline_backends.models.sentence_files import Pooling
from ridgeline_backends.neuron.builders.listing import Listing, given, weight
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.operations import (
    Attention,
    BatchMatmul,
    Binary,
    Embedding,
    LayerNorm,
    Reduce,
    Slice,
    Split,
    Unary,
)
from ridgeline_backends.neuron.partition import KVRule, plan_heads, round_up
from ridgeline_backends.neuron.program import (
    Buffer,
    BufferKind,
    ElementType,
    Form,
    Program,
    Section,
)

ENCODING = "encoding"
"""The phase of these programs."""

FP32 = ElementType.FP32

_TINY = 1e-24
"""The square of the length below which a vector is left as it is."""

_SQUASH: dict[str, Literal["tanh", "relu"]] = {"tanh": "tanh", "relu": "relu"}


def text_encoder_program(
    model: EncoderConfig, config: NeuronConfig, *, pooling: Pooling, bucket: int, batch: int
) -> Program:
    """`pooling` is of no account to a model that scores pairs.

    Inputs: "tokens" and "positions" [batch, bucket], "types" likewise where the model has kinds of
    segments, "lengths" [batch], and "shares" [batch, 1, bucket] where the mean is taken: 1 over the
    length for each token of the text, 0 for what fills it up. Outputs, in fp32: "vectors"
    [batch, 1, hidden], or "scores" [batch, 1, 1].
    """
    return _Builder(model, config, pooling, bucket, batch).program()


class _Builder:
    def __init__(
        self, model: EncoderConfig, config: NeuronConfig, pooling: Pooling, bucket: int, batch: int
    ) -> None:
        self._model = model
        self._cores = config.tp_degree
        self._dtype = config.torch_dtype
        self._pooling = pooling
        self._bucket = bucket
        self._batch = batch
        self._hidden = Buffer("hidden", Form((batch, bucket, model.hidden), self._dtype))

    def program(self) -> Program:
        return Program(
            ENCODING,
            (self._embedding(), self._layers(), self._head()),
            cores=self._cores,
            batch=self._batch,
            bucket=self._bucket,
        )

    def _embedding(self) -> Section:
        model, out = self._model, Listing("embedding", self._cores)
        x = self._rows(out, "words", model.vocab_size, "tokens")
        placed = self._rows(out, "positions", model.positions, "positions")
        x = out.add(Binary("add"), x, placed, to="placed")
        if model.token_types:
            kinds = self._rows(out, "types", model.token_types, "types")
            x = out.add(Binary("add"), x, kinds, to="typed")
        self._norm_into_hidden(out, x, "embedding.norm")
        return out.section()

    def _rows(self, out: Listing, table: str, rows: int, ids: str) -> Buffer:
        whole = weight(f"embedding.{table}", rows, self._model.hidden, dtype=self._dtype)
        return out.add(Embedding(), whole, given(ids, self._batch, self._bucket), to=f"of_{table}")

    def _layers(self) -> Section:
        out = Listing("layers", self._cores)
        out.layer = "layers.{0}"
        joined = self._attended(out)
        self._added(out, joined, "attention")
        inner = round_up(self._model.intermediate, self._cores) // self._cores
        up = self._linear(out, self._hidden, "mlp.up", inner)
        self._added(out, out.add(Unary(self._model.activation), up, to="mlp.inner"), "mlp")
        return out.section(repeats=self._model.layers)

    def _attended(self, out: Listing) -> Buffer:
        """Of the core's own heads, [batch, bucket, heads * width]."""
        model, lead = self._model, (self._batch, self._bucket)
        heads = plan_heads(model.heads, model.heads, self._cores, KVRule.REPLICATED_HEADS)
        count, width = heads.queries_per_core, model.hidden // model.heads
        size = count * width
        qkv = self._linear(out, self._hidden, "attention.qkv", 3 * size)
        names = ("attention.q", "attention.k", "attention.v")
        parts = out.add_all(Split((size,) * 3), (qkv,), names)
        q, k, v = (
            out.shape(part, *lead, count, width, to=f"{name}.heads")
            for part, name in zip(parts, names, strict=True)
        )
        biases = []
        if model.relative_buckets:
            # The compiler folds the table and the distances, which are known, into one constant.
            shape = (1, count, self._bucket, self._bucket)
            biases.append(weight(f"distances.{self._bucket}", *shape, dtype=self._dtype))
        kind = Attention(scale=width**-0.5, causal=False, masked=True, biased=bool(biases))
        lengths = given("lengths", self._batch)
        mixed = out.add(kind, q, k, v, lengths, *biases, to="attention.mixed")
        return out.shape(mixed, *lead, size, to="attention.joined")

    def _added(self, out: Listing, x: Buffer, block: str) -> None:
        """The block's last product, summed over the cores and with its bias, joins the residual
        stream, which is normed after that."""
        hidden, name = self._model.hidden, f"{block}.out"
        if self._cores == 1:
            x = self._linear(out, x, name, hidden)
        else:
            part = out.linear(x, self._matrix(out, name, hidden, x), to=f"{name}.part")
            whole = out.all_reduce(part, to=f"{name}.summed")
            bias = self._vector(out.scoped(f"{name}_bias"), hidden)
            x = out.add(Binary("add"), whole, bias, to=f"{name}.biased")
        x = out.add(Binary("add"), self._hidden, x, to=f"{block}.added")
        self._norm_into_hidden(out, x, out.scoped(f"{block}.norm"))

    def _head(self) -> Section:
        out = Listing("head", self._cores)
        if self._model.rerank:
            name, found = "scores", self._score(out)
        else:
            name, found = "vectors", self._vector_of_each(out)
        out.settle(Buffer(name, found.form, BufferKind.OUTPUT))
        return out.section()

    def _score(self, out: Listing) -> Buffer:
        hidden = self._model.hidden
        first = self._linear(out, self._first(out), "head.first", hidden)
        squashed = out.add(Unary(_SQUASH[self._model.family.head_squash]), first, to="squashed")
        return self._linear(out, squashed, "head.last", 1, output=FP32)

    def _vector_of_each(self, out: Listing) -> Buffer:
        if self._pooling.mean:
            shares = given("shares", self._batch, 1, self._bucket, dtype=FP32)
            pooled = out.add(BatchMatmul(), shares, self._hidden, to="pooled")
        else:
            pooled = out.cast(self._first(out), FP32, to="pooled")
        if not self._pooling.normalised:
            return pooled
        squares = out.add(Binary("multiply"), pooled, pooled, to="squares")
        total = out.add(Reduce("sum", (2,), keep=True), squares, to="total")
        kept = out.add(Unary("shift", _TINY), total, to="kept")
        scale = out.add(Unary("rsqrt"), kept, to="scale")
        return out.add(Binary("multiply"), pooled, scale, to="unit")

    def _first(self, out: Listing) -> Buffer:
        return out.add(Slice(1, 0, 1), self._hidden, to="first")

    def _norm_into_hidden(self, out: Listing, x: Buffer, name: str) -> None:
        size = self._model.hidden
        vectors = self._vector(name, size), self._vector(f"{name}_bias", size)
        out.into(LayerNorm(self._model.norm_eps), x, *vectors, target=self._hidden)

    def _linear(
        self, out: Listing, x: Buffer, name: str, rows: int, *, output: ElementType | None = None
    ) -> Buffer:
        bias = self._vector(out.scoped(f"{name}_bias"), rows)
        matrix = self._matrix(out, name, rows, x)
        return out.linear(x, matrix, bias=bias, to=f"{name}.out", output=output)

    def _matrix(self, out: Listing, name: str, rows: int, x: Buffer) -> Buffer:
        return weight(out.scoped(name), rows, x.shape[-1], dtype=self._dtype)

    def _vector(self, name: str, size: int) -> Buffer:
        return weight(name, size, dtype=FP32)
