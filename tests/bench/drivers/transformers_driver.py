"""transformers' `generate` over static batches, as peers/in_process.py expects of a driver.

    python transformers_driver.py MODEL_DIR THREADS

A batch is as many requests as there are clients; the next batch starts when the last one ends.
"""

from __future__ import annotations

import json
import sys
import time

import torch
import transformers


class Clock(transformers.StoppingCriteria):
    """Stamps every step; stops nothing."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids, scores, **kwargs):
        self.times.append(time.perf_counter())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


def main() -> None:
    torch.set_num_threads(int(sys.argv[2]))
    model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
    model.eval()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(serve(model, json.loads(line))), flush=True)


def serve(model, workload: dict) -> dict:
    started = time.perf_counter()
    requests = []
    prompts = workload["prompts"]
    for first in range(0, len(prompts), workload["concurrency"]):
        batch = torch.tensor(prompts[first : first + workload["concurrency"]])
        sent, clock = time.perf_counter(), Clock()
        with torch.inference_mode():
            model.generate(
                batch,
                attention_mask=torch.ones_like(batch),
                max_new_tokens=workload["max_tokens"],
                min_new_tokens=workload["max_tokens"],
                do_sample=False,
                stopping_criteria=[clock],
            )
        requests += [{"start": sent, "times": clock.times} for _ in batch]
    return {"wall_s": time.perf_counter() - started, "requests": requests}


if __name__ == "__main__":
    main()
