"""From an authenticated request to the operation that it names, and back: which service, which
protocol, checks, the operation itself, serialisation. Knows no HTTP server.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from botocore.model import OperationModel

from ridgeline.errors import RidgelineError
from ridgeline_service.api.absent import advice, rest_operation
from ridgeline_service.api.operations import Caller, Handler, Table
from ridgeline_service.api.shapes import BY_SCOPE, BY_TARGET, SAGEMAKER, SERVICES, Service
from ridgeline_service.api.validation import SerializationException, Validator
from ridgeline_service.api.wire import CborWire, Fault, JsonWire, QueryWire, Reply, Wire, read_form
from ridgeline_service.errors import AccessDeniedException, InternalFailure, UnknownOperation
from ridgeline_service.store.outage import log_failure, outage

log = logging.getLogger(__name__)

_SMITHY_PATH = "/service/"


@dataclass(frozen=True)
class Call:
    """One AWS request. ``scope`` is the service of the verified SigV4 credential scope; ``session``
    is the end and the name of temporary credentials, empty for a key's own."""

    scope: str
    method: str
    path: str
    query: bytes
    target: str
    content_type: str
    body: bytes
    principal: str
    session: str = ""


@dataclass(frozen=True)
class Outcome:
    """The answer, and what metrics call it. ``operation`` is empty when none was recognised."""

    reply: Reply
    service: str
    operation: str
    code: str


class Dispatcher:
    """Answers calls from tables of handlers, one table for each service by its scope."""

    def __init__(self, tables: Mapping[str, Table], new_request_id: Callable[[], str]) -> None:
        self._fronts = {
            service.scope: _Front(service, tables.get(service.scope, {})) for service in SERVICES
        }
        self._new_request_id = new_request_id

    def handle(self, call: Call) -> Outcome:
        """Run the call; every fault becomes an answer in the caller's protocol."""
        request_id = self._new_request_id()
        front = self._fronts.get(call.scope)
        wire: Wire = JsonWire(SERVICES[0])
        operation = ""
        try:
            if front is None:
                raise UnknownOperation(
                    f"Ridgeline does not serve {call.scope[:100]!r}.",
                    hint=f"It serves {', '.join(BY_SCOPE)} and S3.",
                )
            wire = front.wire(call)
            name, body = front.recognise(call)
            operation_model, handler = front.find(name)
            operation = name
            raw = wire.read(operation_model, body)
            request = front.validator.check(operation_model.input_shape, raw)
            answer = handler(request, _caller(call))
            reply = wire.write(operation_model, answer, request_id)
            return Outcome(reply, call.scope, operation, "")
        except RidgelineError as error:
            fault = _fault(error)
        except RecursionError:
            fault = _fault(SerializationException("The body is nested too deeply."))
        except Exception as error:  # noqa: BLE001 - the border: whatever it is, it is answered
            log_failure(log, error, "request %s: %s %s failed", request_id, call.scope, operation)
            fault = _fault(outage(error) or _bug(request_id))
        scope = call.scope if front is not None else "other"
        return Outcome(wire.fault(fault, request_id), scope, operation, fault.code)

    def refuse(self, call: Call, error: RidgelineError) -> Outcome:
        """An answer to a call that must not be dispatched, in the caller's protocol."""
        front = self._fronts.get(call.scope)
        wire = front.wire(call) if front is not None else JsonWire(SERVICES[0])
        fault = _fault(error)
        return Outcome(wire.fault(fault, self._new_request_id()), "other", "", fault.code)

    def warm(self) -> None:
        """Load every service model and compile every operation, so that no caller waits for it."""
        for front in self._fronts.values():
            for name in front.service.operations:
                front.warm(name)


def _caller(call: Call) -> Caller:
    until, _, name = call.session.partition(" ")
    return Caller(call.principal, name, int(until) if until else None)


class _Front:
    """One service: its protocols, its validator and its handlers."""

    def __init__(self, service: Service, table: Table) -> None:
        self.service = service
        self._table = table
        self._found: dict[str, tuple[OperationModel, Handler]] = {}

    @cached_property
    def validator(self) -> Validator:
        return Validator(self.service.validation_code)

    @cached_property
    def _json(self) -> JsonWire:
        return JsonWire(self.service)

    @cached_property
    def _query(self) -> QueryWire:
        return QueryWire(self.service)

    @cached_property
    def _cbor(self) -> CborWire:
        return CborWire(self.service)

    def wire(self, call: Call) -> Wire:
        if call.target:
            return self._json
        if call.path.startswith(_SMITHY_PATH):
            return self._cbor
        if "json" in call.content_type or "query" not in self.service.protocols:
            return self._json
        return self._query

    def recognise(self, call: Call) -> tuple[str, bytes]:
        """The operation's name and the bytes that hold its input."""
        if call.target:
            prefix, _, name = call.target.partition(".")
            self._is_ours(prefix)
            return name, call.body
        if call.path.startswith(_SMITHY_PATH):
            parts = call.path.split("/")
            if len(parts) != 5 or parts[3] != "operation":
                raise UnknownOperation(f"{call.path[:100]!r} names no operation.")
            self._is_ours(parts[2])
            return parts[4], call.body
        form = call.body if call.method == "POST" and call.body else call.query
        if "query" in self.service.protocols:
            for key, value in read_form(form):
                if key == "Action":
                    return value, form
        request = f"{call.method} {call.path[:100]!r}"
        absent = rest_operation(call.method, call.path) if self.service is SAGEMAKER else None
        if absent is not None:
            raise UnknownOperation(
                f"{absent[0]} operation {absent[1]} ({request}) is not supported by Ridgeline.",
                hint=advice(absent[1]),
            )
        raise UnknownOperation(
            f"{request} names no operation of {self.service.scope}.",
            hint=self.service.what_is_supported,
        )

    def find(self, name: str) -> tuple[OperationModel, Handler]:
        found = self._found.get(name)
        if found is None:
            found = (self.service.operation(name), self._table[name])
            self._found[name] = found
        return found

    def warm(self, name: str) -> None:
        model, _ = self.find(name)
        if model.input_shape is not None:
            self.validator.compile(model.input_shape)

    def _is_ours(self, target: str) -> None:
        if target == self.service.target:
            return
        other = BY_TARGET.get(target)
        if other is None:
            raise UnknownOperation(
                f"Unknown target {target[:100]!r}.", hint=f"Known: {', '.join(BY_TARGET)}."
            )
        raise AccessDeniedException(
            f"Credential should be scoped to correct service: {other.scope!r}.",
            code="InvalidSignatureException",
        )


def _bug(request_id: str) -> InternalFailure:
    return InternalFailure(
        f"An internal error occurred. Its cause is in the control plane's log under request "
        f"{request_id}."
    )


def _fault(error: RidgelineError) -> Fault:
    message = f"{error.message} {error.hint}" if error.hint else error.message
    return Fault(error.code, message, error.http_status)
