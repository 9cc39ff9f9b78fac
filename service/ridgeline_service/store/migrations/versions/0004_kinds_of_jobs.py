"""Jobs of several kinds in one table: training, processing, transform."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.drop_index("ix_training_jobs_created", "training_jobs")
    op.drop_index("ix_training_jobs_phase", "training_jobs")
    op.rename_table("training_jobs", "jobs")
    with op.batch_alter_table("jobs") as table:
        # The rows that are there need a value; those to come bring their own.
        table.add_column(
            sa.Column("kind", sa.String(32), nullable=False, server_default="training-job")
        )
        table.add_column(sa.Column("exit_message", sa.Text, nullable=False, server_default=""))
    with op.batch_alter_table("jobs") as table:
        table.alter_column("kind", server_default=None, existing_type=sa.String(32))
        table.alter_column("exit_message", server_default=None, existing_type=sa.Text)
    op.create_index("ix_jobs_created", "jobs", ["kind", "created_at", "name"])
    op.create_index("ix_jobs_phase", "jobs", ["phase", "queued_at"])
