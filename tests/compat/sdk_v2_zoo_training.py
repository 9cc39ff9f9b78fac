"""AWS's sagemaker SDK v2, unmodified: JumpStartEstimator trains a model of the zoo and deploys it.

The service makes the environment of the training image first, where it is not there: minutes.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import sagemaker
from sagemaker.jumpstart.estimator import JumpStartEstimator

CHAT = '{"prompt": "What does the lamp cost?", "completion": "The lamp costs 184 florins."}\n'


def main() -> int:
    role = os.environ["RIDGELINE_ROLE_ARN"]
    session = sagemaker.Session()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "train.jsonl").write_text(CHAT * 16)
        data = session.upload_data(folder, key_prefix="zoo-training")
    estimator = JumpStartEstimator(
        model_id="smollm2-135m-instruct",
        role=role,
        sagemaker_session=session,
        hyperparameters={"max_steps": "2", "batch_size": "2", "log_every": "1"},
    )
    estimator.fit({"training": data})
    assert estimator.model_data.endswith("/output/model.tar.gz"), estimator.model_data
    predictor = estimator.deploy()
    try:
        answer = predictor.predict({"inputs": "The lamp", "parameters": {"max_new_tokens": 4}})
        assert answer, answer
    finally:
        predictor.delete_endpoint()
    print("JumpStartEstimator: trained, deployed, asked, deleted")
    return 0


if __name__ == "__main__":
    sys.exit(main())
