"""The alarm verbs of CloudWatch. They write what is watched; the watcher gives the states."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from ridgeline.errors import InvalidInput
from ridgeline_service.control.alarms.definition import ValidationError, definition_of
from ridgeline_service.control.alarms.showing import shown_alarm, shown_history
from ridgeline_service.control.alarms.states import CONFIGURATION_UPDATE, note, set_state
from ridgeline_service.control.context import Context
from ridgeline_service.control.listing import Key, page_after, tags_in, with_token
from ridgeline_service.control.names import micros_of
from ridgeline_service.control.tags import MAX_TAGS
from ridgeline_service.errors import AwsError
from ridgeline_service.store import alarms as rows
from ridgeline_service.store import journal, scaling
from ridgeline_service.store.alarms import AlarmRecord, AlarmState, HistoryRecord
from ridgeline_service.store.scaling import PolicyKind
from ridgeline_service.telemetry.samples import metric_of

T = TypeVar("T")

_ACTIONS = ("AlarmActions", "OKActions", "InsufficientDataActions")
_OF_METRIC = ("Statistic", "ExtendedStatistic", "Period", "Unit")
_PAGE = 50
_UNCHECKED = "Unchecked: Initial alarm creation"


class ResourceNotFound(AwsError):
    code = "ResourceNotFound"
    http_status = 404


class ResourceNotFoundException(AwsError):
    """Of the tag operations, which name an alarm by its ARN."""

    code = "ResourceNotFoundException"
    http_status = 404


class InvalidFormat(AwsError):
    code = "InvalidFormat"
    http_status = 400


class InvalidNextToken(AwsError):
    code = "InvalidNextToken"
    http_status = 400


class Alarms:
    """One method an operation."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def put(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """A new alarm, or another definition of one, which keeps its state until it is judged."""
        definition_of(request)
        try:
            self._put(request)
        except IntegrityError:
            self._put(request)  # another call made it in between: this one changes it
        return {}

    def describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if "AlarmNames" in request and "AlarmNamePrefix" in request:
            raise ValidationError("Give AlarmNames or AlarmNamePrefix, not both.")
        with self._context.db.read() as connection:
            found = [each for each in rows.all_alarms(connection) if _is_asked(each, request)]
        page, token = _page(found, request, "alarms", key=lambda alarm: (alarm.name,))
        shown = {"MetricAlarms": [shown_alarm(each) for each in page], "CompositeAlarms": []}
        return with_token(shown, token)

    def describe_for_metric(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._context.db.read() as connection:
            found = rows.all_alarms(connection)
        return {"MetricAlarms": [shown_alarm(each) for each in found if _watches(each, request)]}

    def describe_history(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Newest first, unless asked otherwise."""
        with self._context.db.read() as connection:
            found = rows.history(connection, request.get("AlarmName"))
        found = [each for each in found if _happened(each, request)]
        newest_first = request.get("ScanBy", "TimestampDescending") == "TimestampDescending"
        page, token = _page(
            found,
            request,
            "history",
            key=lambda record: (record.at, record.id),
            descending=newest_first,
        )
        return with_token({"AlarmHistoryItems": [shown_history(each) for each in page]}, token)

    def delete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """All of them or none."""
        context = self._context
        with context.db.write() as connection:
            for name in _in_one_order(request["AlarmNames"]):
                alarm = _found(connection, name)
                rows.delete_alarm(connection, name)
                journal.remove_all_tags(connection, alarm.arn)
                summary = f'Alarm "{name}" deleted'
                note(context, connection, name, CONFIGURATION_UPDATE, summary, {"type": "Delete"})
        return {}

    def set_state(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Until the next period of its metric ends, and has data to judge by."""
        context = self._context
        with context.db.write() as connection:
            alarm = _found(connection, request["AlarmName"])
            state, data = AlarmState(request["StateValue"]), _json(request)
            set_state(context, connection, alarm, state, request["StateReason"], data)
        context.changed()
        return {}

    def enable_actions(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return self._enable(request, enabled=True)

    def disable_actions(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return self._enable(request, enabled=False)

    def tag(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._context.db.write() as connection:
            arn = self._tagged(connection, request, for_update=True)
            self._put_tags(connection, arn, request)
        return {}

    def untag(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._context.db.write() as connection:
            journal.remove_tags(connection, self._tagged(connection, request), request["TagKeys"])
        return {}

    def list_tags(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._context.db.read() as connection:
            tags = journal.tags_of(connection, self._tagged(connection, request))
        return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

    def _put(self, request: Mapping[str, Any]) -> None:
        context, name = self._context, request["AlarmName"]
        config = {key: value for key, value in request.items() if key != "Tags"}
        enabled = bool(request.get("ActionsEnabled", True))
        with context.db.write() as connection:
            _check_actions(connection, request)
            former = rows.get_alarm(connection, name, for_update=True)
            if former is None:
                self._add(connection, request, config, enabled)
            else:
                changes = rows.AlarmChanges(
                    config=config, configured_at=context.now(), actions_enabled=enabled
                )
                rows.change_alarm(connection, name, **changes)
            done = "updated" if former else "created"
            data = {"type": "Update" if former else "Create"}
            note(context, connection, name, CONFIGURATION_UPDATE, f'Alarm "{name}" {done}', data)

    def _add(
        self, connection: Connection, request: Mapping[str, Any], config: dict[str, Any], on: bool
    ) -> None:
        now = self._context.now()
        alarm = AlarmRecord(
            name=request["AlarmName"],
            arn=self._arn(request["AlarmName"]),
            config=config,
            configured_at=now,
            actions_enabled=on,
            state=AlarmState.INSUFFICIENT_DATA,
            reason=_UNCHECKED,
            data="",
            updated_at=now,
            transitioned_at=now,
        )
        rows.add_alarm(connection, alarm)
        self._put_tags(connection, alarm.arn, request)

    def _enable(self, request: Mapping[str, Any], *, enabled: bool) -> dict[str, Any]:
        """Names that no alarm has are passed over, as in AWS."""
        with self._context.db.write() as connection:
            for name in _in_one_order(request["AlarmNames"]):
                rows.change_alarm(connection, name, actions_enabled=enabled)
        self._context.changed()
        return {}

    def _put_tags(self, connection: Connection, arn: str, request: Mapping[str, Any]) -> None:
        if len(journal.put_tags(connection, arn, tags_in(request))) > MAX_TAGS:
            raise ValidationError(f"An alarm has at most {MAX_TAGS} tags.")

    def _tagged(
        self, connection: Connection, request: Mapping[str, Any], *, for_update: bool = False
    ) -> str:
        arn: str = request["ResourceARN"]
        name = arn.removeprefix(self._arn(""))
        if name == arn or rows.get_alarm(connection, name, for_update=for_update) is None:
            raise ResourceNotFoundException(f"No alarm has the ARN {arn[:300]!r}.")
        return arn

    def _arn(self, name: str) -> str:
        settings = self._context.settings
        return f"arn:aws:cloudwatch:{settings.region}:{settings.account_id}:alarm:{name}"


def _in_one_order(names: Sequence[str]) -> list[str]:
    """Two calls that lock the same alarms in other orders would wait for each other for ever."""
    return sorted(names)


def _found(connection: Connection, name: str) -> AlarmRecord:
    """Locked until the transaction ends. Raises ResourceNotFound."""
    alarm = rows.get_alarm(connection, name, for_update=True)
    if alarm is None:
        raise ResourceNotFound(f"No alarm has the name {name!r}.")
    return alarm


def _json(request: Mapping[str, Any]) -> str:
    """The StateReasonData. Raises InvalidFormat for what is not JSON."""
    text: str = request.get("StateReasonData", "")
    try:
        json.loads(text or "{}")
    except ValueError as error:
        raise InvalidFormat(f"StateReasonData is not JSON: {error}.") from error
    return text


def _check_actions(connection: Connection, request: Mapping[str, Any]) -> None:
    """Raises ValidationError for an action that nobody here would do."""
    for kind in _ACTIONS:
        for arn in request.get(kind) or ():
            policy = scaling.policy_of_arn(connection, arn)
            if policy is None or policy.kind is not PolicyKind.STEPS:
                raise ValidationError(
                    f"{kind} has {arn[:300]!r}, and no step scaling policy has that ARN now: no "
                    "other action is there than such a policy, by the ARN of PutScalingPolicy.",
                    hint="Leave it out, and read the alarm's state with DescribeAlarms.",
                )


def _is_asked(alarm: AlarmRecord, request: Mapping[str, Any]) -> bool:
    if "MetricAlarm" not in request.get("AlarmTypes", ["MetricAlarm"]):
        return False
    if "ChildrenOfAlarmName" in request or "ParentsOfAlarmName" in request:
        return False  # of composite alarms, which are not there
    names, state = request.get("AlarmNames"), request.get("StateValue")
    return (
        (not names or alarm.name in names)
        and alarm.name.startswith(request.get("AlarmNamePrefix", ""))
        and state in (None, alarm.state)
        and (
            "ActionPrefix" not in request
            or any(arn.startswith(request["ActionPrefix"]) for arn in alarm.actions)
        )
    )


def _watches(alarm: AlarmRecord, request: Mapping[str, Any]) -> bool:
    """The metric and all its dimensions; what else is asked only where it is given."""
    metric = metric_of(request["Namespace"], request["MetricName"], request.get("Dimensions") or ())
    return definition_of(alarm.config).metric == metric and all(
        alarm.config.get(name) == request[name] for name in _OF_METRIC if name in request
    )


def _happened(record: HistoryRecord, request: Mapping[str, Any]) -> bool:
    since, until = micros_of(request.get("StartDate")), micros_of(request.get("EndDate"))
    return (
        request.get("HistoryItemType") in (None, record.kind)
        and "MetricAlarm" in request.get("AlarmTypes", ["MetricAlarm"])
        and (since is None or record.at >= since)
        and (until is None or record.at <= until)
    )


def _page(
    found: Sequence[T],
    request: Mapping[str, Any],
    listing: str,
    key: Callable[[T], Key],
    *,
    descending: bool = False,
) -> tuple[Sequence[T], str | None]:
    limit, token = request.get("MaxRecords", _PAGE), request.get("NextToken")
    try:
        return page_after(
            found, key, listing=listing, limit=limit, token=token, descending=descending
        )
    except InvalidInput as error:
        raise InvalidNextToken(error.message) from error
