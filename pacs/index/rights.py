"""What the role pacs may do in the database `postgres`: back the cluster up, name places in its log, read settings.

pgBackRest connects as this role, and so do recovery points. A superuser (`pacs dev`) needs none of it. The functions
are PostgreSQL's, of version 15 and later.
"""

from __future__ import annotations

STATEMENTS = (
    "GRANT pg_read_all_settings TO pacs",
    "GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean) TO pacs",
    "GRANT EXECUTE ON FUNCTION pg_backup_stop(boolean) TO pacs",
    "GRANT EXECUTE ON FUNCTION pg_create_restore_point(text) TO pacs",
    "GRANT EXECUTE ON FUNCTION pg_switch_wal() TO pacs",
)
