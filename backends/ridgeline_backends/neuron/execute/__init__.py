"""Programs that run: logical cores with their own shards, in torch on the processor."""

# Before torch: it tells OpenMP not to spin.
import ridgeline_backends.cpu  # noqa: F401
