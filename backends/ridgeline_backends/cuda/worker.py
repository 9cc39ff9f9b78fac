"""A process of a tensor-parallel model that follows the first one: `worker ORDER`."""

from __future__ import annotations

import signal
import sys

import torch

from ridgeline_backends.cuda.processes import Order
from ridgeline_backends.cuda.program import DeviceDecoder
from ridgeline_backends.models.stored_config import read_config


def main(text: str) -> int:
    # A terminal's interrupt goes to every process; the first one decides when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = Order.from_json(text)
    device = torch.device(order.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    group = order.join()
    artifact = order.artifact
    with torch.inference_mode():
        config = read_config(artifact.model_dir)
        program = DeviceDecoder(artifact.model_dir, config, artifact.plan, device, group=group)
        while True:
            try:
                step = group.follow()
            except RuntimeError:
                return 1  # the first process is gone
            if step is None:
                break
            program.forward(*step)
    group.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
