"""Keys may have limits: requests and tokens a minute."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("keys", sa.Column("requests_per_minute", sa.BigInteger))
    op.add_column("keys", sa.Column("tokens_per_minute", sa.BigInteger))
