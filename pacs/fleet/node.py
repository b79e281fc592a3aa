"""An appliance at the other end of an SSH connection, with Fabric: `pacs` is run there, files go there.

A connection is made when something is first asked. Host keys are checked on the way there and at each gateway
(host_keys.py); Fabric on its own would take any. Words of a command hold no secret, as everybody on the appliance may
read them.
"""

from __future__ import annotations

import io
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from fabric import Config, Connection
from invoke.exceptions import CommandTimedOut, ThreadException
from paramiko.ssh_exception import AuthenticationException, BadHostKeyException, NoValidConnectionsError, SSHException

from pacs.errors import PacsError
from pacs.fleet.host_keys import USERS_OWN, Ask, AskingPolicy, load
from pacs.fleet.inventory import Appliance

#: How long it may take to be connected, and to be let in [s].
CONNECT_S = 15
#: How long a short question may take to be answered [s].
QUESTION_S = 180.0
_KEEPALIVE_S = 20
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class Unreachable(PacsError):
    """The appliance cannot be reached. Is it on, and is its address right in the inventory?"""

    exit_code = 21


class NodeFailed(PacsError):
    """The appliance did not do what it was asked for. What it said stands above."""

    exit_code = 22


@dataclass(frozen=True)
class Done:
    """What a command there ended with, and said."""

    exit_code: int
    output: bytes
    errors: str

    @property
    def said(self) -> str:
        """The end of what it said, in one line, harmless on a terminal."""
        return plain(self.errors.strip() or self.output.decode("utf-8", "replace").strip())[-400:]


def plain(text: str) -> str:
    """A text of another machine's in one line, without what a terminal obeys."""
    return _CONTROL.sub(" ", text)


class Node:
    """An appliance to be asked. Close it, or use it as a context."""

    def __init__(self, appliance: Appliance, ask: Ask | None = None) -> None:
        """`ask` is asked about a host key that is not known; without it such a host is refused."""
        self.appliance = appliance
        self._ask = ask
        self._connection: Connection | None = None

    def __enter__(self) -> Node:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the next question makes a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def pacs(self, *words: str, timeout_s: float | None = QUESTION_S, given: str | None = None) -> Done:
        """Run `pacs WORDS` there, with `given` on its standard input. Raise Unreachable if that cannot be, or the
        connection is lost before it ends."""
        return self.shell(f"{self.appliance.command} {shlex.join(words)}", timeout_s, given)

    def shell(self, command: str, timeout_s: float | None = QUESTION_S, given: str | None = None) -> Done:
        """The same for a line of the shell there."""
        connection = self._connected()
        stream = io.StringIO(given) if given is not None else False
        try:
            # Latin-1 has a character for each byte, so that what comes is what was said, whatever it is.
            found = connection.run(
                command, hide=True, warn=True, pty=False, in_stream=stream, encoding="latin-1", timeout=timeout_s
            )
        except CommandTimedOut:
            self.close()
            raise Unreachable(
                f"{self.appliance.name} gave no answer for {timeout_s:.0f} s. Look at it: it may be at it still."
            ) from None
        except (SSHException, OSError, EOFError, ThreadException) as error:
            raise self._lost(error) from error
        if found.exited == -1:  # the channel ended without a word
            raise self._lost(None)
        return Done(
            found.exited, found.stdout.encode("latin-1"), found.stderr.encode("latin-1").decode("utf-8", "replace")
        )

    def json(self, *words: str, accept: tuple[int, ...] = (0,), timeout_s: float | None = QUESTION_S) -> Any:
        """What `pacs WORDS` prints there, as JSON. Raise NodeFailed if it ends otherwise, or prints something else."""
        done = self.pacs(*words, timeout_s=timeout_s)
        if done.exit_code in accept:
            try:
                return json.loads(done.output)
            except ValueError:
                pass
        raise NodeFailed(f"`pacs {shlex.join(words)}` ended with {done.exit_code}: {done.said or 'it said nothing'}")

    def require(self, *words: str, timeout_s: float | None = QUESTION_S) -> bytes:
        """What `pacs WORDS` prints there. Raise NodeFailed if it does not end well."""
        done = self.pacs(*words, timeout_s=timeout_s)
        if done.exit_code:
            raise NodeFailed(
                f"`pacs {shlex.join(words)}` ended with {done.exit_code}: {done.said or 'it said nothing'}"
            )
        return done.output

    def put(self, file: Path, path: str) -> None:
        """Copy a file there, to a path that this user may write to."""
        try:
            self._connected().put(str(file), path)
        except (SSHException, OSError, EOFError) as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception | None) -> Unreachable:
        self.close()
        why = f" ({plain(str(error)) or type(error).__name__})" if error else ""
        return Unreachable(f"The connection to {self.appliance.name} was lost{why}. Look at it: it may be at it still.")

    def _connected(self) -> Connection:
        if self._connection is not None and self._connection.is_connected:
            return self._connection
        appliance = self.appliance
        connection = _connection(appliance, self._ask)
        try:
            connection.open()
        except BadHostKeyException as error:
            raise Unreachable(
                f"{appliance.name} has ANOTHER host key than the known one. Was it set up anew? Then remove the old "
                f"one: `ssh-keygen -R {plain(str(error.hostname))}`. Else somebody stands between: go no further."
            ) from None
        except AuthenticationException:
            raise Unreachable(
                f"{appliance.name} does not let {connection.user} in. Is the key in ssh-agent, and on the appliance?"
            ) from None
        except (SSHException, OSError, EOFError) as error:
            raise Unreachable(f"{appliance.name} ({appliance.host}) cannot be reached: {_why(error)}.") from error
        connection.transport.set_keepalive(_KEEPALIVE_S)
        self._connection = connection
        return connection


def _connection(appliance: Appliance, ask: Ask | None) -> Connection:
    config = Config(runtime_ssh_path=str(appliance.ssh_config) if appliance.ssh_config else None)
    connection = Connection(
        appliance.host, user=appliance.user, port=appliance.port, config=config, connect_timeout=CONNECT_S,
        connect_kwargs={
            "banner_timeout": CONNECT_S, "auth_timeout": CONNECT_S,
            **({"key_filename": str(appliance.key_file)} if appliance.key_file else {}),
        },
    )  # fmt: skip
    known_hosts = appliance.known_hosts or USERS_OWN.expanduser()
    hop = connection
    while isinstance(hop, Connection):
        load(hop.client, known_hosts)
        hop.client.set_missing_host_key_policy(AskingPolicy(known_hosts, ask))
        hop = hop.gateway
    return connection


def _why(error: Exception) -> str:
    if isinstance(error, NoValidConnectionsError):
        error = next(iter(error.errors.values()), error)
    if isinstance(error, TimeoutError):
        return "it does not answer"
    return plain(getattr(error, "strerror", None) or str(error) or type(error).__name__)
