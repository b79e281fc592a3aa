"""The words that this program and the programs around it say, for pacs/model/redaction.py.

Ours are read from our own source: every text in it that is not a description, the names of its modules, classes and
functions (a logged traceback has them), and the operating system's messages. Of the programs around us the sentences
stand here that matter when something is wrong; a sentence that is not here comes out with holes.
"""

from __future__ import annotations

import ast
import builtins
import os
from collections.abc import Iterator
from pathlib import Path

import pacs
from pacs.model.redaction import Vocabulary, learn

_SYSTEMD = """
Started. Starting. Stopped. Stopping. Finished. Reached target. Stopped target. Reloading. Reloaded. Listening on
socket. Closed. Mounted. Mounting. Unmounted. Deactivated successfully. Consumed CPU time, memory peak, read from
disk. Main process exited, code=exited, status=0/SUCCESS, code=killed, code=dumped, status=9/KILL, SIGKILL, SEGV,
ABRT, TERM. Failed with result 'exit-code', 'signal', 'timeout', 'start-limit-hit', 'oom-kill', 'core-dump',
'watchdog', 'resources', 'dependency', 'condition', 'protocol'. Failed to start. Scheduled restart job, restart
counter is at. Start request repeated too quickly. start operation timed out. Terminating. stop-sigterm timed out.
Killing. Sent signal SIGTERM to main process. State 'stop-sigterm' timed out. Job failed with result. Dependency
failed for. Skipped due to ExecCondition=. Triggering OnFailure= dependencies. A process of this unit has been killed
by the OOM killer. Unit entered failed state. Watchdog timeout. Condition check resulted in being skipped. active
activating inactive failed dead running exited waiting listening elapsed auto-restart start-pre start-post Control
process. Service socket timer path target. Received SIGTERM from PID. systemd. Invocation. Bound to unit. Requires.
Wants. Conflicts. BindsTo.
"""

_POSTGRESQL = """
LOG: ERROR: FATAL: PANIC: WARNING: HINT: DETAIL: STATEMENT: CONTEXT: NOTICE: database system is ready to accept
connections. database system was shut down at. database system was interrupted; last known up at. database system was
not properly shut down; automatic recovery in progress. redo starts at. redo done at system usage: CPU: user: system:
elapsed. starting PostgreSQL on by gcc, bit. listening on Unix socket. checkpoint starting: time; checkpoint complete:
wrote buffers, WAL file(s) added, removed, recycled; write= sync= total= sync files= longest= average= distance=
estimate= lsn= redo. shutdown immediate force wait end-of-recovery. received fast shutdown request. received smart
shutdown request. received immediate shutdown request. aborting any active transactions. background worker exited with
exit code. server process was terminated by signal: Killed Aborted Segmentation fault. terminating any other active
server processes. all server processes terminated; reinitializing. terminating connection because of crash of another
server process. canceling statement due to statement timeout, lock timeout, user request. could not connect. could not
open file. could not write to file. could not read block. could not extend file. could not fsync file. could not
access file. could not create lock file. No space left on device. invalid page in block of relation base global. page
verification failed, calculated checksum but expected. deadlock detected. Process waits for ShareLock on transaction;
blocked by process. duplicate key value violates unique constraint. violates foreign key constraint, check constraint,
not-null constraint. too many clients already. remaining connection slots are reserved. out of memory. out of shared
memory. archive command failed with exit code. archive command was terminated by signal. the failed archive command
was. archiving write-ahead log file failed too many times, will try again later. restored log file from archive.
consistent recovery state reached at. selected new timeline ID. archive recovery complete. recovery stopping at
restore point. started streaming WAL from primary at on timeline. invalid record length at. unexpected EOF on client
connection. role does not exist. database does not exist. relation does not exist. permission denied for table.
password authentication failed. no pg_hba.conf entry. automatic vacuum of table: index scans. automatic analyze of
table. autovacuum launcher. logical replication launcher. pid= user= db= app= client= postgres template1 pacs main
port data directory has wrong ownership.
"""

_OTHERS = """
Errno. kernel: EXT4-fs error, I/O error, dev, sector, op READ WRITE FLUSH, Buffer I/O error on device, logical block,
lost async page write, remounting filesystem read-only, Out of memory: Killed process, oom-kill, blk_update_request,
critical medium error, task blocked for more than seconds, nfs: server not responding, still trying, timed out, CIFS:
VFS, XFS, corruption. nginx: emerg alert crit error warn notice info. connect() failed, upstream, client, server,
request, host, referrer, worker process exited on signal, bind() to failed, connection refused while connecting to
upstream, permission denied. pgBackRest: P00 P01 INFO WARN ERROR DETAIL HINT. backup command begin, end: completed
successfully, aborted with exception. archive-push archive-get expire check stanza-create stanza-upgrade. unable to
open missing file. unable to find a valid repository. restic: repository opened, Fatal: unable to open config file,
wrong password or no key found, snapshot saved. Traceback (most recent call last): File line in module. Error
Exception. true false yes no none null.
"""


def vocabulary() -> Vocabulary:
    """The words that may stay."""
    errors = [os.strerror(number) for number in range(1, 134)]
    exceptions = [name for name, each in vars(builtins).items() if isinstance(each, type)]
    texts, identifiers = _of_source(Path(pacs.__file__).parent)
    return learn([*texts, *errors, _SYSTEMD, _POSTGRESQL, _OTHERS], [*identifiers, *exceptions])


def _of_source(top: Path) -> tuple[list[str], list[str]]:
    texts: list[str] = []
    identifiers: list[str] = []
    for path in sorted(top.rglob("*.py")):
        tree = ast.parse(path.read_bytes())
        # An error's description is its message.
        descriptions = set() if path.name == "errors.py" else {id(each) for each in _descriptions(tree)}
        identifiers.append(path.stem)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in descriptions:
                texts.append(node.value)
            elif isinstance(node, ast.FunctionDef) or (isinstance(node, ast.ClassDef) and not node.name.istitle()):
                identifiers.append(node.name)  # a class of one word may be a name, too
    return texts, identifiers


def _descriptions(tree: ast.Module) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                yield first.value
