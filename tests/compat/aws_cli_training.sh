#!/bin/sh
# The AWS CLI, unmodified: training jobs, from their data to their artifacts.
set -eu
name="cli-train-$$"
image="763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.8.0-cpu-py312"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$work/code"
cat > "$work/code/train.py" <<'PYTHON'
import os
import sys

rows = open(os.path.join(os.environ["SM_CHANNEL_TRAIN"], "d.csv")).read().split()
if "--fail" in sys.argv:
    raise ValueError("the labels are empty")
if "--wait" in sys.argv:
    print("waits", flush=True)
    import time
    time.sleep(600)
print(f"rows={len(rows)};", flush=True)
open(os.path.join(os.environ["SM_MODEL_DIR"], "rows.txt"), "w").write(str(len(rows)))
PYTHON
tar -czf "$work/sourcedir.tar.gz" -C "$work/code" train.py
printf '1\n2\n3\n' > "$work/d.csv"
aws s3 mb "s3://$name"
aws s3 cp "$work/sourcedir.tar.gz" "s3://$name/sourcedir.tar.gz" --only-show-errors
aws s3 cp "$work/d.csv" "s3://$name/data/d.csv" --only-show-errors

metrics='[{"Name":"rows","Regex":"rows=([0-9]+);"}]'
algorithm="{\"TrainingImage\":\"$image\",\"TrainingInputMode\":\"File\",\"MetricDefinitions\":$metrics}"
source="S3DataSource={S3DataType=S3Prefix,S3Uri=s3://$name/data/}"
channels="ChannelName=train,DataSource={$source}"
code="s3://$name/sourcedir.tar.gz"

# create JOB HYPERPARAMETERS: starts a job.
create() {
    aws sagemaker create-training-job --training-job-name "$1" --role-arn "$RIDGELINE_ROLE_ARN" \
        --algorithm-specification "$algorithm" \
        --input-data-config "$channels" \
        --output-data-config "S3OutputPath=s3://$name/out" \
        --resource-config InstanceType=ml.m5.large,InstanceCount=1,VolumeSizeInGB=5 \
        --stopping-condition MaxRuntimeInSeconds=600 \
        --hyper-parameters "sagemaker_program=train.py,sagemaker_submit_directory=$code$2" \
        --query TrainingJobArn --output text
}

# told JOB FIELDS: what describe-training-job says of it.
told() {
    aws sagemaker describe-training-job --training-job-name "$1" --query "$2" --output text
}

# ended JOB: waits by itself first, because the waiter looks every two minutes.
ended() {
    for _ in $(seq 60); do
        told "$1" TrainingJobStatus | grep -q "Completed\|Failed\|Stopped" && break
        sleep 1
    done
    aws sagemaker wait training-job-completed-or-stopped --training-job-name "$1"
}

create "$name" "" | grep -q ":training-job/$name"
ended "$name"
told "$name" "[TrainingJobStatus,SecondaryStatus]" | grep -q "Completed.*Completed"
told "$name" "FinalMetricDataList[0].[MetricName,Value]" | grep -q "rows.*3.0"
aws s3 cp "$(told "$name" ModelArtifacts.S3ModelArtifacts)" "$work/model.tar.gz" --only-show-errors
tar -xzOf "$work/model.tar.gz" rows.txt | grep -qx 3
# What `aws logs tail` of the CLI's version 2 asks.
aws logs filter-log-events --log-group-name /aws/sagemaker/TrainingJobs --interleaved \
    --log-stream-name-prefix "$name/" --start-time "$(date -d '1 hour ago' +%s000)" \
    --query 'events[].message' --output text | grep "rows=3;" > /dev/null
aws sagemaker list-training-jobs --name-contains "$name" --status-equals Completed \
    --query 'TrainingJobSummaries[].TrainingJobName' --output text | grep -qx "$name"

create "$name-bad" ',fail=1' > /dev/null
if ended "$name-bad" 2> /dev/null; then
    echo "the waiter did not see the failure" >&2
    exit 1
fi
told "$name-bad" FailureReason | grep -q "ValueError: the labels are empty"

create "$name-stopped" ',wait=1' > /dev/null
for _ in $(seq 30); do
    told "$name-stopped" SecondaryStatus | grep -q Training && break
    sleep 1
done
aws sagemaker stop-training-job --training-job-name "$name-stopped"
ended "$name-stopped"
told "$name-stopped" TrainingJobStatus | grep -qx Stopped
aws sagemaker delete-training-job --training-job-name "$name-stopped"
aws s3 rb "s3://$name" --force > /dev/null
echo "AWS CLI: trained, told metrics and logs, a failure with its cause, stopped, deleted"
