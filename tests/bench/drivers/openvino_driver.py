"""Runs inside the OpenVINO environment: a closed loop over its continuous batching pipeline.

    python openvino_driver.py MODEL.gguf THREADS

One JSON line says that the model is loaded; then a line is read for each workload and one answered
(peers/in_process.py gives their fields). Times are seconds of this process's monotonic clock.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import openvino
import openvino_genai

CACHE_GIB = 2


def main() -> None:
    model, threads = sys.argv[1], int(sys.argv[2])
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = CACHE_GIB
    scheduler.max_num_batched_tokens = 2048
    scheduler.max_num_seqs = 32
    scheduler.dynamic_split_fuse = True
    scheduler.enable_prefix_caching = True
    properties = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    pipeline = openvino_genai.ContinuousBatchingPipeline(model, scheduler, "CPU", properties)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(serve(pipeline, json.loads(line))), flush=True)


def serve(pipeline, workload: dict) -> dict:
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = workload["max_tokens"]
    config.ignore_eos = True
    config.do_sample = False
    waiting = list(enumerate(workload["prompts"]))[::-1]
    results: list[dict] = []
    running: dict[int, tuple] = {}
    started = time.perf_counter()
    while waiting or running:
        while waiting and len(running) < workload["concurrency"]:
            number, prompt = waiting.pop()
            ids = openvino.Tensor(np.array([prompt], dtype=np.int64))
            request = {"start": time.perf_counter(), "times": [], "tokens": []}
            results.append(request)
            running[number] = (pipeline.add_request(number, ids, config), request)
        pipeline.step()
        now = time.perf_counter()
        for number, (handle, request) in list(running.items()):
            if handle.can_read():
                for output in handle.read().values():
                    request["tokens"] += output.generated_ids
                    request["times"] += [now] * len(output.generated_ids)
            if len(request["times"]) >= workload["max_tokens"]:
                del running[number]
    return {"wall_s": time.perf_counter() - started, "requests": results}


if __name__ == "__main__":
    main()
