"""How the tokens of a sequence look at each other: attention of every kind.

Each function takes the normed hidden state [batch, length, hidden] and gives the core's part of a
sum over the cores, of the same shape.
"""

from __future__ import annotations

from ridgeline_backends.neuron.builders.architecture import (
    LatentAttention,
    Mixer,
    SelfAttention,
)
from ridgeline_backends.neuron.builders.site import Site
from ridgeline_backends.neuron.operations import (
    Attention,
    BatchMatmul,
    CachedAttention,
    Concat,
    KVWrite,
    Rope,
    Slice,
    Split,
    Transpose,
)
from ridgeline_backends.neuron.partition import plan_heads, round_up
from ridgeline_backends.neuron.program import Buffer, BufferKind, Form


def mix(site: Site, mixer: Mixer, x: Buffer) -> Buffer:
    """The core's part of what the mixer gives."""
    if isinstance(mixer, SelfAttention):
        return _self_attention(site, mixer, x)
    return _latent_attention(site, mixer, x)


def _self_attention(site: Site, mixer: SelfAttention, x: Buffer) -> Buffer:
    out, dim = site.out, mixer.head_dim
    heads = plan_heads(mixer.heads, mixer.kv_heads, site.cores, site.rules.kv)
    queries, keys = heads.queries_per_core, heads.keys_per_core
    if site.config.fused_qkv:
        rows = (queries + 2 * keys) * dim
        fused = site.linear(x, "attention.qkv", rows, to="attention.qkv.out", bias=mixer.bias)
        sizes = (queries * dim, keys * dim, keys * dim)
        names = ("attention.q.out", "attention.k.out", "attention.v.out")
        parts = out.add_all(Split(sizes), (fused,), names)
    else:
        parts = tuple(
            site.linear(
                x, f"attention.{one}", rows * dim, to=f"attention.{one}.out", bias=mixer.bias
            )
            for one, rows in (("q", queries), ("k", keys), ("v", keys))
        )
    lead = x.shape[:2]
    q, k, v = (
        out.shape(part, *lead, rows, dim, to=f"attention.{one}.heads")
        for part, one, rows in zip(parts, "qkv", (queries, keys, keys), strict=True)
    )
    if mixer.qk_norm:
        q = site.normed(q, "attention.q_norm", to="attention.q.normed")
        k = site.normed(k, "attention.k_norm", to="attention.k.normed")
    if mixer.rope is not None:
        tables = site.tables[mixer.rope]
        q = out.add(Rope(), q, site.positions, *tables, to="attention.q.turned")
        k = out.add(Rope(), k, site.positions, *tables, to="attention.k.turned")
    k_cache = site.cache("attention.k_cache", keys, dim, kept=mixer.kept)
    v_cache = site.cache("attention.v_cache", keys, dim, kept=mixer.kept)
    for cache, new in ((k_cache, k), (v_cache, v)):
        out.into(KVWrite(), cache, new, site.positions, site.slots, target=cache)
    if site.cached_keys is not None:
        attended = out.add(
            CachedAttention(
                scale=mixer.scale,
                length=min(site.cached_keys, mixer.kept or site.cached_keys),
                window=mixer.window,
                softcap=mixer.softcap,
                kernel=site.kernel,
            ),
            *(q, k_cache, v_cache, site.positions, site.slots),
            to="attention.attended",
        )
    else:
        attended = out.add(
            Attention(
                scale=mixer.scale, window=mixer.window, softcap=mixer.softcap, kernel=site.kernel
            ),
            *(q, k, v),
            to="attention.attended",
        )
    joined = out.shape(attended, *lead, queries * dim, to="attention.joined")
    return site.linear(joined, "attention.o", site.model.hidden, to="attention.o.out")


def _latent_attention(site: Site, mixer: LatentAttention, x: Buffer) -> Buffer:
    """With the up-projections of keys and values absorbed into queries and output: the cache holds
    one latent for all heads, on every core."""
    out = site.out
    lead = batch, length = x.shape[0], x.shape[1]
    heads = round_up(mixer.heads, site.cores) // site.cores
    rank, nope, turned = mixer.kv_rank, mixer.nope_dim, mixer.rope_dim
    source = x
    if mixer.q_rank is not None:
        low = site.linear(x, "attention.q_a", mixer.q_rank, to="attention.q_a.out")
        source = site.normed(low, "attention.q_a_norm", to="attention.q_a.normed")
    width = nope + turned
    q = site.linear(source, "attention.q_b", heads * width, to="attention.q_b.out")
    q = out.shape(q, *lead, heads, width, to="attention.q.heads")
    plain, rotary = out.add_all(Split((nope, turned)), (q,), ("attention.q.nope", "attention.q.pe"))
    latent = site.linear(x, "attention.kv_a", rank + turned, to="attention.kv_a.out")
    parts = ("attention.latent", "attention.k.pe")
    compressed, key = out.add_all(Split((rank, turned)), (latent,), parts)
    compressed = site.normed(compressed, "attention.kv_a_norm", to="attention.latent.normed")
    tables = site.tables[mixer.rope]
    rotary = out.add(Rope(), rotary, site.positions, *tables, to="attention.q.turned")
    key = out.shape(key, *lead, 1, turned, to="attention.k.heads")
    key = out.add(Rope(), key, site.positions, *tables, to="attention.k.turned")
    compressed = out.shape(compressed, *lead, 1, rank, to="attention.latent.heads")
    entry = out.add(Concat(), compressed, key, to="attention.entry")
    cache = site.cache("attention.latent_cache", 1, rank + turned)
    out.into(KVWrite(), cache, entry, site.positions, site.slots, target=cache)
    absorbed = _per_head(site, plain, "attention.k_b", heads, nope, rank)
    query = out.add(Concat(), absorbed, rotary, to="attention.query")
    if site.cached_keys is not None:
        values = out.add(Slice(3, 0, rank), cache, to="attention.values")
        attended = out.add(
            CachedAttention(scale=mixer.scale, length=site.cached_keys, kernel=site.kernel),
            *(query, cache, values, site.positions, site.slots),
            to="attention.attended",
        )
    else:
        attended = out.add(
            Attention(scale=mixer.scale, kernel=site.kernel),
            *(query, entry, compressed),
            to="attention.attended",
        )
    value = _per_head(site, attended, "attention.v_b", heads, rank, mixer.value_dim)
    joined = out.shape(value, batch, length, heads * mixer.value_dim, to="attention.joined")
    return site.linear(joined, "attention.o", site.model.hidden, to="attention.o.out")


def _per_head(site: Site, x: Buffer, suffix: str, heads: int, columns: int, rows: int) -> Buffer:
    """x [batch, length, heads, columns] by a matrix [columns, rows] of each head."""
    batch, length = x.shape[:2]
    name = site.name(suffix)
    form = Form((heads, columns, rows), site.config.weight_dtype)
    matrices = Buffer(name, form, BufferKind.WEIGHT)
    out = site.out
    ahead = out.add(Transpose((2, 0, 1, 3)), x, to=f"{suffix}.ahead")
    flat = out.shape(ahead, heads, batch * length, columns, to=f"{suffix}.flat")
    made = out.add(BatchMatmul(), flat, matrices, to=f"{suffix}.made")
    deep = out.shape(made, heads, batch, length, rows, to=f"{suffix}.deep")
    return out.add(Transpose((1, 2, 0, 3)), deep, to=f"{suffix}.out")
