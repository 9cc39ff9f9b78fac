#!/bin/sh
# The AWS CLI, unmodified: S3, the control plane and the runtime.
set -eu
name="cli-$$"
image="763104351884.dkr.ecr.us-east-1.amazonaws.com/djl-inference:0.30.0-lmi12.0.0-cu124"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

aws sts get-caller-identity --query Arn --output text
aws s3 mb "s3://$name"
echo '{"inputs": "The capital of France is", "parameters": {"max_new_tokens": 8}}' > "$work/in.json"
aws s3 cp "$work/in.json" "s3://$name/in.json" --only-show-errors
aws s3 ls "s3://$name/" | grep -q in.json

aws sagemaker create-model --model-name "$name" --execution-role-arn "$RIDGELINE_ROLE_ARN" \
    --primary-container "Image=$image,Environment={HF_MODEL_ID=smollm2-135m-instruct}"
aws sagemaker create-endpoint-config --endpoint-config-name "$name" --production-variants \
    "VariantName=v,ModelName=$name,InitialInstanceCount=1,InstanceType=ml.m5.large"
aws sagemaker create-endpoint --endpoint-name "$name" --endpoint-config-name "$name"
aws sagemaker wait endpoint-in-service --endpoint-name "$name"
aws sagemaker list-endpoints --name-contains "$name" --query 'Endpoints[].EndpointStatus' --output text

aws sagemaker-runtime invoke-endpoint --endpoint-name "$name" --content-type application/json \
    --body "fileb://$work/in.json" "$work/out.json"
grep -q Paris "$work/out.json"
aws logs describe-log-streams --log-group-name "/aws/sagemaker/Endpoints/$name" \
    --query 'logStreams[].logStreamName' --output text | grep -q '^v/'

aws sagemaker delete-endpoint --endpoint-name "$name"
aws sagemaker wait endpoint-deleted --endpoint-name "$name"
aws sagemaker delete-endpoint-config --endpoint-config-name "$name"
aws sagemaker delete-model --model-name "$name"
aws s3 rb "s3://$name" --force > /dev/null
echo "AWS CLI: deployed, listed, invoked, logs read, deleted"
