"""The configured database, ready for use by this data directory."""

from __future__ import annotations

from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from ridgeline.errors import RidgelineError, Unavailable
from ridgeline_service.paths import DataDir
from ridgeline_service.settings import Settings
from ridgeline_service.store.database import Database, connect
from ridgeline_service.store.owner import check_owner, claim_database


def open_database(settings: Settings, data_dir: DataDir) -> Database:
    """Connect to the configured database and migrate it; one outside the directory is claimed.

    Raises Unavailable if it cannot be reached or written, naming which one, and InvalidInput if it
    belongs to another directory or a newer version, or cannot hold all text: then nothing in it
    has changed.
    """
    url = settings.database_url or f"sqlite:///{data_dir.database}"
    if not settings.database_url:
        data_dir.database.parent.mkdir(parents=True, exist_ok=True)
    database = connect(url)
    try:
        if settings.database_url:
            check_owner(database, data_dir)
        database.migrate()
        if settings.database_url:
            claim_database(database, data_dir)
    except RidgelineError:
        database.close()
        raise
    except DBAPIError as error:
        database.close()
        raise Unavailable(
            f"the database {make_url(url).render_as_string()} cannot be used: {error.orig}",
            hint="Check database_url in settings.json, that the server runs and the disk has room.",
        ) from error
    return database
