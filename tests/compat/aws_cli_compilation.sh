#!/bin/sh
# The AWS CLI, unmodified: compilation jobs for simulated Neuron devices.
set -eu
name="cli-compile-$$"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/model"
python - "$work/model" <<'PYTHON'
"""A Llama of two small layers without anything learnt, as a folder that transformers reads."""
import json
import struct
import sys
from math import prod
from pathlib import Path

folder, shapes = Path(sys.argv[1]), {"model.embed_tokens.weight": [96, 32]}
for layer in range(2):
    parts = {"self_attn.q_proj": [32, 32], "self_attn.k_proj": [16, 32]}
    parts |= {"self_attn.v_proj": [16, 32], "self_attn.o_proj": [32, 32]}
    parts |= {"mlp.gate_proj": [48, 32], "mlp.up_proj": [48, 32], "mlp.down_proj": [32, 48]}
    parts |= {"input_layernorm": [32], "post_attention_layernorm": [32]}
    shapes |= {f"model.layers.{layer}.{part}.weight": shape for part, shape in parts.items()}
shapes |= {"model.norm.weight": [32], "lm_head.weight": [96, 32]}
header, end = {}, 0
for tensor, shape in shapes.items():
    begin, end = end, end + 4 * prod(shape)
    header[tensor] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
text = json.dumps(header).encode()
weights = struct.pack("<Q", len(text)) + text + bytes(end)
(folder / "model.safetensors").write_bytes(weights)
config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 96}
config |= {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
config |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
(folder / "config.json").write_text(json.dumps(config))
PYTHON
tar -czf "$work/model.tar.gz" -C "$work/model" .
aws s3 mb "s3://$name"
aws s3 cp "$work/model.tar.gz" "s3://$name/in/model.tar.gz" --only-show-errors

# compile JOB KEY: starts a compilation job.
compile() {
    cat > "$work/input.json" <<JSON
{
    "S3Uri": "s3://$name/in/$2",
    "DataInputConfig": "{\"input_ids\": [1, 128]}",
    "Framework": "PYTORCH"
}
JSON
    aws sagemaker create-compilation-job --compilation-job-name "$1" \
        --role-arn "$RIDGELINE_ROLE_ARN" --input-config "file://$work/input.json" \
        --output-config "S3OutputLocation=s3://$name/out/,TargetDevice=ml_inf2" \
        --stopping-condition MaxRuntimeInSeconds=600 \
        --query CompilationJobArn --output text
}

# told JOB FIELDS: what describe-compilation-job says of it.
told() {
    aws sagemaker describe-compilation-job --compilation-job-name "$1" --query "$2" --output text
}

# ended JOB STATUS: there is no waiter for compilation jobs.
ended() {
    for _ in $(seq 120); do
        status=$(told "$1" CompilationJobStatus)
        case "$status" in COMPLETED | FAILED | STOPPED) break ;; esac
        sleep 1
    done
    test "$status" = "$2"
}

compile "$name" model.tar.gz | grep -q ":compilation-job/$name"
ended "$name" COMPLETED
aws s3 cp "$(told "$name" ModelArtifacts.S3ModelArtifacts)" "$work/out.tar.gz" --only-show-errors
tar -tzf "$work/out.tar.gz" | grep -q neuron/compiled.json
compile "$name-bad" nothing.tar.gz > /dev/null
ended "$name-bad" FAILED
told "$name-bad" FailureReason | grep -q "There is nothing at s3://$name/in/nothing.tar.gz"
compile "$name-stopped" model.tar.gz > /dev/null
aws sagemaker stop-compilation-job --compilation-job-name "$name-stopped"
ended "$name-stopped" STOPPED
test "$(aws sagemaker list-compilation-jobs --name-contains "$name" --page-size 1 \
    --query 'length(CompilationJobSummaries)')" = 3
aws sagemaker list-compilation-jobs --status-equals COMPLETED --sort-by Name \
    --query 'CompilationJobSummaries[].CompilationTargetDevice' --output text | grep -q ml_inf2
aws sagemaker delete-compilation-job --compilation-job-name "$name-stopped"
aws s3 rb "s3://$name" --force > /dev/null
echo "AWS CLI: compiled, a failure with its cause, stopped, listed, deleted"
