#!/bin/sh
# The AWS CLI, unmodified: compilation jobs for simulated Neuron devices.
set -eu
name="cli-compile-$$"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/model"
python "$(dirname "$0")/tiny_llama.py" "$work/model"
tar -czf "$work/model.tar.gz" -C "$work/model" .
aws s3 mb "s3://$name"
aws s3 cp "$work/model.tar.gz" "s3://$name/in/model.tar.gz" --only-show-errors

# compile JOB KEY [LENGTH]: starts a compilation job.
compile() {
    cat > "$work/input.json" <<JSON
{
    "S3Uri": "s3://$name/in/$2",
    "DataInputConfig": "{\"input_ids\": [1, ${3:-128}]}",
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
# Behind others that no cache answers, so that it has not ended before it is stopped.
for length in 32 64 96; do
    compile "$name-$length" model.tar.gz "$length" > /dev/null
done
compile "$name-stopped" model.tar.gz 256 > /dev/null
aws sagemaker stop-compilation-job --compilation-job-name "$name-stopped"
ended "$name-stopped" STOPPED
test "$(aws sagemaker list-compilation-jobs --name-contains "$name" --page-size 1 \
    --query 'length(CompilationJobSummaries)')" = 6
aws sagemaker list-compilation-jobs --status-equals COMPLETED --sort-by Name \
    --query 'CompilationJobSummaries[].CompilationTargetDevice' --output text | grep -q ml_inf2
aws sagemaker delete-compilation-job --compilation-job-name "$name-stopped"
aws s3 rb "s3://$name" --force > /dev/null
echo "AWS CLI: compiled, a failure with its cause, stopped, listed, deleted"
