"""Batch transform: records of S3 objects through a model server, each answered once.

``records`` splits and groups, ``rows`` filters and joins, ``parts`` keeps what was answered,
``server`` is the model server, ``work`` what is left to do; ``runner`` joins them. Only ``server``
and ``runner`` know processes.
"""
