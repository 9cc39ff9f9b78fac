"""The programs of a decoder: context encoding and token generation, for one bucket each.

Every core has its heads, its columns of the MLP and its rows of the head; two sums a layer join
them. Buffers are named after the places of their weights: "layers.{0}.attention.qkv".
Imports no torch.
"""

from __future__ import annotations

from ridgeline_backends.neuron.builders.architecture import DecoderArchitecture, Layer, Run
from ridgeline_backends.neuron.builders.feedforward import feed_forward
from ridgeline_backends.neuron.builders.listing import Listing, given, weight
from ridgeline_backends.neuron.builders.mixers import mix
from ridgeline_backends.neuron.builders.rules import LibraryRules
from ridgeline_backends.neuron.builders.site import Phase, Site
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.operations import (
    Binary,
    Embedding,
    Group,
    OwnPart,
    Take,
    TopK,
    Unary,
)
from ridgeline_backends.neuron.partition import round_up
from ridgeline_backends.neuron.program import (
    Buffer,
    BufferKind,
    ElementType,
    Form,
    Program,
    Section,
)

FP32 = ElementType.FP32


def decoder_program(
    model: DecoderArchitecture,
    config: NeuronConfig,
    *,
    phase: Phase,
    bucket: int,
    rules: LibraryRules,
    batch: int | None = None,
) -> Program:
    """`bucket`: the compiled length of a prompt or of its part, or how much KV a decode step reads.

    Inputs: "tokens" and "positions" [batch, length], "slots" [batch], and "last" [batch], the place
    of the last token, where a prompt is encoded. Outputs: "logits" [batch, 1 or length, own part of
    the vocabulary, or all of it], in fp32; with sampling on the device "top.values" and "top.ids"
    [batch, 1, k] of each core's own part.
    """
    return _DecoderBuilder(model, config, phase, bucket, rules, batch).program()


class _DecoderBuilder:
    def __init__(
        self,
        model: DecoderArchitecture,
        config: NeuronConfig,
        phase: Phase,
        bucket: int,
        rules: LibraryRules,
        batch: int | None,
    ) -> None:
        self._model = model
        self._config = config
        self._phase = phase
        self._bucket = bucket
        self._rules = rules
        decoding = phase is Phase.TOKEN_GENERATION
        self._batch = batch or (config.decode_batch if decoding else config.ctx_batch_size)
        self._length = 1 if decoding else bucket
        shape = (self._batch, self._length)
        self._tokens = given("tokens", *shape)
        self._positions = given("positions", *shape)
        self._slots = given("slots", self._batch)
        self._tables = tuple(
            (
                weight(f"rope.{index}.cos", config.seq_len, dim, dtype=FP32),
                weight(f"rope.{index}.sin", config.seq_len, dim, dtype=FP32),
            )
            for index, dim in enumerate(model.rotary_dims)
        )
        length = self._length
        if self._site("").sequence_parallel:
            length //= config.tp_degree
        self._hidden = Buffer(
            "hidden", Form((self._batch, length, model.hidden), config.torch_dtype)
        )

    def program(self) -> Program:
        return Program(
            self._phase.value,
            (self._embedding(), *self._layers(), self._head()),
            cores=self._config.tp_degree,
            batch=self._batch,
            bucket=self._bucket,
        )

    def _site(self, section: str) -> Site:
        return Site(
            out=Listing(section, self._config.tp_degree),
            model=self._model,
            config=self._config,
            rules=self._rules,
            phase=self._phase,
            bucket=self._bucket,
            batch=self._batch,
            length=self._length,
            positions=self._positions,
            slots=self._slots,
            tables=self._tables,
        )

    def _embedding(self) -> Section:
        site, model = self._site("embedding"), self._model
        out, cores, dtype = site.out, site.cores, site.dtype
        cut = "vocabulary" if self._config.vocab_parallel else self._rules.embedding
        if cut == "vocabulary" and cores > 1:
            rows = round_up(model.vocab_size, cores) // cores
            table = weight("embedding", rows, model.hidden, dtype=dtype)
            found = out.add(Embedding(), table, self._tokens, site.rank, to="embedded.part")
            x = out.all_reduce(found, to="embedded")
        elif cut == "hidden" and model.hidden % cores == 0:
            table = weight("embedding", model.vocab_size, model.hidden // cores, dtype=dtype)
            found = out.add(Embedding(), table, self._tokens, to="embedded.part")
            x = out.all_gather(found, to="embedded")
        else:
            table = weight("embedding", model.vocab_size, model.hidden, dtype=dtype)
            x = out.add(Embedding(), table, self._tokens, to="embedded")
        if model.learned_positions:
            places = weight("positions", model.learned_positions, model.hidden, dtype=dtype)
            placed = out.add(Embedding(), places, self._positions, to="placed")
            x = out.add(Binary("add"), x, placed, to="embedded.placed")
        if model.embedding_scale != 1:
            x = out.add(Unary("scale", model.embedding_scale), x, to="embedded.scaled")
        if site.sequence_parallel:
            x = out.add(OwnPart(Group(cores), axis=1), x, to="embedded.own")
        out.settle(self._hidden)
        return out.section()

    def _layers(self) -> list[Section]:
        """A section for each pattern of layers."""
        return [self._section(run) for run in self._model.runs]

    def _section(self, run: Run) -> Section:
        first, period, repeats = run
        site = self._site("layers" if first == 0 else f"layers.{first}")
        for place, layer in enumerate(self._model.layers[first : first + period]):
            site.out.layer = f"layers.{{{place}}}"
            if layer.parallel:
                self._parallel_layer(site, layer)
            else:
                self._layer(site, layer)
        return site.out.section(repeats=repeats, first_layer=first, period=period)

    def _layer(self, site: Site, layer: Layer) -> None:
        x = site.whole(site.normed(self._hidden, "attention_norm", to="normed"), to="gathered")
        self._add(site, layer, mix(site, layer.mixer, x), "attention")
        x = site.whole(site.normed(self._hidden, "mlp_norm", to="mlp.normed"), to="mlp.gathered")
        self._add(site, layer, feed_forward(site, layer.mlp, x), "mlp")

    def _parallel_layer(self, site: Site, layer: Layer) -> None:
        x = site.whole(site.normed(self._hidden, "attention_norm", to="normed"), to="gathered")
        mixed = mix(site, layer.mixer, x)
        made = feed_forward(site, layer.mlp, x)
        both = site.out.add(Binary("add"), mixed, made, to="both")
        self._add(site, layer, both, "both")

    def _add(self, site: Site, layer: Layer, part: Buffer, name: str) -> None:
        """Join the cores' parts and add them to the residual stream."""
        x = site.summed(part, to=f"{name}.summed")
        bias = {
            "attention": layer.o_bias,
            "mlp": layer.down_bias,
            "both": layer.o_bias or layer.down_bias,
        }[name]
        if bias:
            added = site.vector(f"{name}.out_bias", self._model.hidden)
            x = site.out.add(Binary("add"), x, added, to=f"{name}.biased")
        if layer.sandwich:
            x = site.normed(x, f"post_{name}_norm", to=f"{name}.post_normed")
        site.out.into(Binary("add"), self._hidden, x, target=self._hidden)

    def _head(self) -> Section:
        site, model = self._site("head"), self._model
        out, cores = site.out, site.cores
        x = site.whole(self._hidden, to="head.gathered")
        if self._phase in (Phase.CONTEXT_ENCODING, Phase.CHUNKED_PREFILL):
            last = given("last", self._batch)
            x = out.add(Take(), x, last, to="head.last")
        x = site.normed(x, "norm", to="head.normed")
        rows = round_up(model.vocab_size, cores) // cores
        matrix = weight("head", rows, model.hidden, dtype=site.dtype)
        logits = out.linear(x, matrix, to="head.out", output=FP32)
        if model.final_softcap is not None:
            logits = out.add(Unary("softcap", model.final_softcap), logits, to="head.capped")
        if self._rules.head_gathered:
            logits = out.all_gather(logits, to="head.gathered_logits")
        if self._config.output_logits or not self._config.on_device_sampling:
            logits = out.settle(Buffer("logits", logits.form, BufferKind.OUTPUT))
        if self._config.on_device_sampling and self._phase is not Phase.PROMPT_SCORING:
            k = min(self._config.global_topk, logits.shape[-1])
            names = ("top.values", "top.ids")
            out.add_all(TopK(k), (logits,), names, place=BufferKind.OUTPUT)
        return out.section()
