"""What the role pacs may do in the database `postgres`: back the cluster up, name places in its log, read settings,
let a standby follow and promote one.

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
    "ALTER ROLE pacs REPLICATION",  # for a standby: its slot, and the copy that it begins with
    "GRANT pg_monitor TO pacs",
    "GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO pacs",
)
