"""STS and IAM, as far as SageMaker's clients ask: who am I, and may this role run jobs.

There is one account and one role, which every key of this service acts as.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast
from urllib.parse import quote

from ridgeline_service.api.control_port import SessionVerbs
from ridgeline_service.api.operations import Answer, Caller, Table
from ridgeline_service.errors import AwsError
from ridgeline_service.settings import Settings

_CREATED = datetime(2026, 1, 1, tzinfo=UTC)
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "sagemaker.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}


class NoSuchEntity(AwsError):
    code = "NoSuchEntity"
    http_status = 404


def sts_table(settings: Settings, sessions: SessionVerbs) -> Table:
    def get_caller_identity(request: dict[str, object], caller: Caller) -> Answer:
        said = caller.session or caller.principal
        session = re.sub(r"[^\w+=,.@-]", "-", said, flags=re.ASCII)[:64] or "ridgeline"
        role = f"arn:aws:sts::{settings.account_id}:assumed-role/{settings.role_name}"
        return {
            "UserId": f"{settings.role_id}:{session}",
            "Account": settings.account_id,
            "Arn": f"{role}/{session}",
        }

    def assume_role(request: dict[str, object], caller: Caller) -> Answer:
        return sessions.assume_role(request, caller.principal, caller.until)

    def get_session_token(request: dict[str, object], caller: Caller) -> Answer:
        return sessions.get_session_token(request, caller.principal, caller.until)

    return {
        "GetCallerIdentity": get_caller_identity,
        "AssumeRole": assume_role,
        "GetSessionToken": get_session_token,
    }


def iam_table(settings: Settings) -> Table:
    def known(name: str) -> None:
        if name != settings.role_name:
            raise NoSuchEntity(
                f"The role with name {name} cannot be found.",
                hint=f"The role of this service is {settings.role_arn}.",
            )

    def get_role(request: dict[str, object], caller: Caller) -> Answer:
        known(str(request["RoleName"]))
        return {
            "Role": {
                "Path": "/",
                "RoleName": settings.role_name,
                "RoleId": settings.role_id,
                "Arn": settings.role_arn,
                "CreateDate": _CREATED,
                "AssumeRolePolicyDocument": quote(json.dumps(_TRUST), safe=""),
                "Description": "The role that Ridgeline's jobs and endpoints run as.",
                "MaxSessionDuration": 12 * 3600,
            }
        }

    def simulate(request: dict[str, object], caller: Caller) -> Answer:
        source = str(request["PolicySourceArn"])
        known(source.rsplit("/", 1)[-1])
        actions = cast(Sequence[str], request["ActionNames"])
        resources = cast(Sequence[str], request.get("ResourceArns") or ["*"])
        return {
            "EvaluationResults": [
                {
                    "EvalActionName": action,
                    "EvalResourceName": resource,
                    "EvalDecision": "allowed",
                    "MatchedStatements": [],
                    "MissingContextValues": [],
                }
                for action in actions
                for resource in resources
            ],
            "IsTruncated": False,
        }

    def attached(request: dict[str, object], caller: Caller) -> Answer:
        known(str(request["RoleName"]))
        policy = "AmazonSageMakerFullAccess"
        return {
            "AttachedPolicies": [
                {"PolicyName": policy, "PolicyArn": f"arn:aws:iam::aws:policy/{policy}"}
            ],
            "IsTruncated": False,
        }

    return {
        "GetRole": get_role,
        "SimulatePrincipalPolicy": simulate,
        "ListAttachedRolePolicies": attached,
    }
