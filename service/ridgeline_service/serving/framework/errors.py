"""Errors of the framework server that are not the user's code failing."""

from __future__ import annotations


class HostingError(Exception):
    """Answered with ``status`` and the message."""

    status = 500


class UnsupportedContentType(HostingError):
    """The default input_fn cannot read this content type."""

    status = 415


class NotAcceptable(HostingError):
    """The default output_fn cannot write any type that Accept names."""

    status = 406


class BadRequest(HostingError):
    """The body is not what its content type says."""

    status = 400


class BadAnswer(HostingError):
    """The user's functions gave an answer that HTTP cannot carry."""


class ContractError(HostingError):
    """The user's module breaks SageMaker's hosting contract; the model is not loaded."""
