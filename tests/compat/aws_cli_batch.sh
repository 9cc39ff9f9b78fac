#!/bin/sh
# The AWS CLI, unmodified: processing and transform jobs, from their inputs to their outputs.
set -eu
name="cli-batch-$$"
registry="763104351884.dkr.ecr.us-east-1.amazonaws.com"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/model/code"
cat > "$work/count.py" <<'PYTHON'
import sys
import time

rows = open("/opt/ml/processing/input/data/d.csv").read().split()
if "--fail" in sys.argv:
    raise ValueError("the labels are empty")
if "--wait" in sys.argv:
    time.sleep(600)
open("/opt/ml/processing/out/rows.txt", "w").write(str(len(rows)))
open("/opt/ml/output/message", "w").write("counted")
PYTHON
cat > "$work/model/code/inference.py" <<'PYTHON'
import time


def model_fn(folder):
    return 2.0


def transform_fn(model, body, content_type, accept):
    text = body if isinstance(body, str) else body.decode()
    if "wait" in text:
        time.sleep(600)
    return "\n".join(str(float(line) * model) for line in text.split()), accept
PYTHON
tar -czf "$work/model.tar.gz" -C "$work/model" .
printf '1\n2\n3\n' > "$work/d.csv"
printf 'wait\n' > "$work/wait.csv"
printf 'two\n' > "$work/bad.csv"
aws s3 mb "s3://$name"
for file in count.py model.tar.gz; do
    aws s3 cp "$work/$file" "s3://$name/$file" --only-show-errors
done
for file in d wait bad; do
    aws s3 cp "$work/$file.csv" "s3://$name/$file/$file.csv" --only-show-errors
done

# input NAME URI PATH: one input of a processing job.
input() {
    printf '{"InputName":"%s","S3Input":{"S3Uri":"%s","LocalPath":"/opt/ml/processing/input/%s",' "$@"
    printf '"S3DataType":"S3Prefix","S3InputMode":"File"}}'
}

# process JOB ARGUMENTS...: starts a processing job.
process() {
    job="$1"
    shift
    target="S3Uri=s3://$name/$job,LocalPath=/opt/ml/processing/out,S3UploadMode=EndOfJob"
    inputs="[$(input code "s3://$name/count.py" code),$(input data "s3://$name/d/" data)]"
    command='["python3","/opt/ml/processing/input/code/count.py"]'
    application="{\"ImageUri\":\"$registry/pytorch-training:2.8.0-cpu-py312\""
    application="$application,\"ContainerEntrypoint\":$command,\"ContainerArguments\":[\"$1\"]}"
    aws sagemaker create-processing-job --processing-job-name "$job" \
        --role-arn "$RIDGELINE_ROLE_ARN" \
        --app-specification "$application" \
        --processing-inputs "$inputs" \
        --processing-output-config "Outputs=[{OutputName=out,S3Output={$target}}]" \
        --processing-resources \
        "ClusterConfig={InstanceCount=1,InstanceType=ml.m5.large,VolumeSizeInGB=5}" \
        --stopping-condition MaxRuntimeInSeconds=600 --tags Key=team,Value=red \
        --query ProcessingJobArn --output text
}

# transform JOB PREFIX: starts a transform job.
transform() {
    source="S3DataSource={S3DataType=S3Prefix,S3Uri=s3://$name/$2/}"
    aws sagemaker create-transform-job --transform-job-name "$1" --model-name "$name" \
        --batch-strategy SingleRecord \
        --transform-input "DataSource={$source},ContentType=text/csv,SplitType=Line" \
        --transform-output "S3OutputPath=s3://$name/$1,AssembleWith=Line,Accept=text/csv" \
        --transform-resources InstanceType=ml.m5.large,InstanceCount=1 \
        --model-client-config InvocationsMaxRetries=0 \
        --query TransformJobArn --output text
}

# told KIND JOB FIELDS: what describe-KIND-job says of it.
told() {
    aws sagemaker "describe-$1-job" "--$1-job-name" "$2" --query "$3" --output text
}

# reached KIND JOB STATUS FIELD: waits for a status by itself, because waiters look every minute.
reached() {
    for _ in $(seq 60); do
        told "$1" "$2" "$4" | grep -q "$3" && return
        sleep 1
    done
    echo "$2 has not come to $3" >&2
    return 1
}

# ended KIND MEMBER JOB: as the CLI's waiter sees it.
ended() {
    reached "$1" "$3" "Completed\|Failed\|Stopped" "$2"
    aws sagemaker wait "$1-job-completed-or-stopped" "--$1-job-name" "$3"
}

# fails KIND MEMBER JOB WORDS: it ends as failed for the CLI's waiter, with this reason.
fails() {
    if ended "$1" "$2" "$3" 2> /dev/null; then
        echo "the waiter did not see the failure of $3" >&2
        exit 1
    fi
    told "$1" "$3" FailureReason | grep -q "$4"
}

process "$name" --factor | grep -q ":processing-job/$name"
process "$name-bad" --fail > /dev/null
process "$name-long" --wait > /dev/null
ended processing ProcessingJobStatus "$name"
told processing "$name" "[ProcessingJobStatus,ExitMessage]" | grep -q "Completed.*counted"
test "$(aws s3 cp "s3://$name/$name/rows.txt" -)" = 3
fails processing ProcessingJobStatus "$name-bad" "ValueError: the labels are empty"
aws sagemaker stop-processing-job --processing-job-name "$name-long"
ended processing ProcessingJobStatus "$name-long"
told processing "$name-long" ProcessingJobStatus | grep -qx Stopped
test "$(aws sagemaker list-processing-jobs --name-contains "$name" --page-size 1 \
    --query 'length(ProcessingJobSummaries)')" = 3
aws sagemaker list-processing-jobs --status-equals Failed --sort-by Name --max-items 1 \
    --query 'ProcessingJobSummaries[].ProcessingJobName' --output text | grep -q "$name-bad"
aws sagemaker list-tags --resource-arn "$(told processing "$name" ProcessingJobArn)" \
    --query 'Tags[].Value' --output text | grep -qx red
aws logs filter-log-events --log-group-name /aws/sagemaker/ProcessingJobs \
    --log-stream-name-prefix "$name-bad/" --query 'events[].message' --output text |
    grep -q "the labels are empty"

aws sagemaker create-model --model-name "$name" --execution-role-arn "$RIDGELINE_ROLE_ARN" \
    --primary-container \
    "Image=$registry/pytorch-inference:2.6.0-cpu-py312,ModelDataUrl=s3://$name/model.tar.gz" \
    > /dev/null
transform "$name" d | grep -q ":transform-job/$name"
transform "$name-bad" bad > /dev/null
transform "$name-long" wait > /dev/null
ended transform TransformJobStatus "$name"
test "$(aws s3 cp "s3://$name/$name/d.csv.out" - | tr '\n' ' ')" = "2.0 4.0 6.0 "
told transform "$name" "[MaxConcurrentTransforms,TransformInput.CompressionType]" |
    grep -q "1.*None"
fails transform TransformJobStatus "$name-bad" "could not convert string to float"
aws sagemaker stop-transform-job --transform-job-name "$name-long"
ended transform TransformJobStatus "$name-long"
told transform "$name-long" TransformJobStatus | grep -qx Stopped
aws sagemaker list-transform-jobs --name-contains "$name" --status-equals Stopped \
    --query 'TransformJobSummaries[].TransformJobName' --output text | grep -qx "$name-long"
if aws sagemaker describe-transform-job --transform-job-name nobody 2> "$work/said"; then
    exit 1
fi
grep -q "(ValidationException)" "$work/said"
aws sagemaker delete-model --model-name "$name"
aws s3 rb "s3://$name" --force > /dev/null
echo "AWS CLI: processed and transformed, failures with their causes, stopped, listed"
