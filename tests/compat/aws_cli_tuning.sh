#!/bin/sh
# The AWS CLI, unmodified: hyperparameter tuning jobs and their training jobs.
set -eu
name="tune-$$" # at most 32 characters
image="763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.8.0-cpu-py312"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/train.py" <<'PYTHON'
import argparse
import time

parser = argparse.ArgumentParser()
parser.add_argument("--width", type=float)
parser.add_argument("--wait", type=float, default=0)
args = parser.parse_args()
print(f"loss={(args.width - 0.3) ** 2:.6f};", flush=True)
time.sleep(args.wait)
PYTHON
tar -czf "$work/sourcedir.tar.gz" -C "$work" train.py
aws s3 mb "s3://$name"
aws s3 cp "$work/sourcedir.tar.gz" "s3://$name/sourcedir.tar.gz" --only-show-errors

# tune JOB WAIT REGEX: starts a search.
tune() {
    cat > "$work/config.json" <<JSON
{
    "Strategy": "Random",
    "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
    "ResourceLimits": {"MaxNumberOfTrainingJobs": 3, "MaxParallelTrainingJobs": 2},
    "ParameterRanges": {
        "ContinuousParameterRanges": [{"Name": "width", "MinValue": "0", "MaxValue": "1"}]
    },
    "RandomSeed": 3
}
JSON
    cat > "$work/definition.json" <<JSON
{
    "StaticHyperParameters": {
        "sagemaker_program": "train.py",
        "sagemaker_submit_directory": "s3://$name/sourcedir.tar.gz",
        "wait": "$2"
    },
    "AlgorithmSpecification": {
        "TrainingImage": "$image",
        "TrainingInputMode": "File",
        "MetricDefinitions": [{"Name": "loss", "Regex": "$3"}]
    },
    "RoleArn": "$RIDGELINE_ROLE_ARN",
    "OutputDataConfig": {"S3OutputPath": "s3://$name/out"},
    "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 5},
    "StoppingCondition": {"MaxRuntimeInSeconds": 600}
}
JSON
    aws sagemaker create-hyper-parameter-tuning-job --hyper-parameter-tuning-job-name "$1" \
        --hyper-parameter-tuning-job-config "file://$work/config.json" \
        --training-job-definition "file://$work/definition.json" \
        --query HyperParameterTuningJobArn --output text
}

# told JOB FIELDS: what describe-hyper-parameter-tuning-job says of it.
told() {
    aws sagemaker describe-hyper-parameter-tuning-job --hyper-parameter-tuning-job-name "$1" \
        --query "$2" --output text
}

# trials JOB FIELDS OPTIONS...: what the list of its training jobs says.
trials() {
    job="$1"
    fields="$2"
    shift 2
    aws sagemaker list-training-jobs-for-hyper-parameter-tuning-job \
        --hyper-parameter-tuning-job-name "$job" --query "$fields" --output text "$@"
}

# ended JOB STATUS: there is no waiter for tuning jobs.
ended() {
    for _ in $(seq 90); do
        status=$(told "$1" HyperParameterTuningJobStatus)
        case "$status" in Completed | Failed | Stopped) break ;; esac
        sleep 1
    done
    test "$status" = "$2"
}

tune "$name" 0 "loss=([0-9.]+);" | grep -q ":hyper-parameter-tuning-job/$name"
ended "$name" Completed
told "$name" "[TrainingJobStatusCounters.Completed,ObjectiveStatusCounters.Succeeded]" |
    grep -q "3.*3"
best=$(told "$name" BestTrainingJob.TrainingJobName)
first=$(trials "$name" "TrainingJobSummaries[0].TrainingJobName" \
    --sort-by FinalObjectiveMetricValue --sort-order Ascending)
test "$best" = "$first"
# Its text would be a line a page.
test "$(trials "$name" 'length(TrainingJobSummaries)' --status-equals Completed --page-size 1 \
    --output json)" = 3
trials "$name" "TrainingJobSummaries[].TunedHyperParameters.width" --max-items 1 | grep -q "0\."
aws sagemaker wait training-job-completed-or-stopped --training-job-name "$best"
aws sagemaker describe-training-job --training-job-name "$best" --query TuningJobArn \
    --output text | grep -q ":hyper-parameter-tuning-job/$name"

tune "$name-silent" 0 "accuracy=([0-9.]+);" > /dev/null
ended "$name-silent" Failed
told "$name-silent" FailureReason | grep -q "No objective metrics found"

tune "$name-long" 600 "loss=([0-9.]+);" > /dev/null
for _ in $(seq 60); do
    test "$(trials "$name-long" 'length(TrainingJobSummaries)')" = 2 && break
    sleep 1
done
aws sagemaker stop-hyper-parameter-tuning-job --hyper-parameter-tuning-job-name "$name-long"
ended "$name-long" Stopped
aws sagemaker list-hyper-parameter-tuning-jobs --name-contains "$name" --status-equals Stopped \
    --sort-by Name --query 'HyperParameterTuningJobSummaries[].HyperParameterTuningJobName' \
    --output text | grep -qx "$name-long"
aws sagemaker delete-hyper-parameter-tuning-job --hyper-parameter-tuning-job-name "$name-long"
if told "$name-long" HyperParameterTuningJobStatus 2> "$work/said"; then
    exit 1
fi
grep -q "(ResourceNotFound)" "$work/said"
aws s3 rb "s3://$name" --force > /dev/null
echo "AWS CLI: tuned, the best training job found, a failure with its cause, stopped, deleted"
