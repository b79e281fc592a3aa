"""What pacs/net leans on inside pynetdicom. A failure here says: read pacs/net/association.py again before you take the
new release."""

from __future__ import annotations

import inspect
import queue

import pynetdicom
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import StateMachine
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

from pacs.net.association import ArchiveRequestHandler


def test_the_release_is_one_that_was_read() -> None:
    assert pynetdicom.__version__.startswith("3.0.")


def test_a_request_is_served_by_one_method_with_message_and_context() -> None:
    assert list(inspect.signature(Association._serve_request).parameters) == ["self", "msg", "context_id"]
    assert "self._serve_request(" in inspect.getsource(Association)


def test_an_association_has_what_is_used_of_it() -> None:
    assoc = Association(AE("X"), "acceptor")
    assert assoc._accepted_cx == {}
    assert assoc._is_paused in (True, False)
    assert assoc._reactor_checkpoint.is_set()
    assert assoc._started_dul is False
    assert not assoc._dul_ready.is_set()
    assert assoc.dimse.cancel_req == {}
    assert isinstance(assoc.dul.to_user_queue, queue.Queue)
    assert assoc.dul.state_machine.current_state == "Sta1"
    assert assoc.acse_timeout is not None
    assert hasattr(assoc.acceptor, "supported_contexts")


def test_a_reactor_that_is_started_already_is_not_started_again() -> None:
    source = inspect.getsource(Association.run_reactor)
    assert "if not self._started_dul:" in source
    assert "self.dul.receive_pdu(wait=True, timeout=self.acse_timeout)" in source
    assert "if not self.is_aborted and not self.is_rejected:" in source  # a rejection in EVT_REQUESTED ends it
    assert "self._is_paused" in inspect.getsource(Association._run_reactor)
    assert "self._reactor_checkpoint.wait()" in inspect.getsource(Association._run_reactor)


def test_the_request_handler_makes_associations_as_ours_does() -> None:
    """Ours repeats the body of theirs with our class: what theirs sets, ours must set."""
    theirs, ours = (inspect.getsource(kind._create_association) for kind in (RequestHandler, ArchiveRequestHandler))
    for line in theirs.splitlines():
        target = line.strip().split(" = ")[0]
        if target.startswith("assoc.") and " = " in line:
            assert target in ours, f"pynetdicom sets {target}"


def test_acceptors_are_counted_as_before() -> None:
    source = inspect.getsource(AssociationServer)
    assert "_listening" not in source, "pynetdicom has an attribute of our name now"
    for name in ("server_bind", "server_close", "get_request"):
        assert callable(getattr(AssociationServer, name))
    assert "maximum_associations" in inspect.getsource(pynetdicom.acse)


def test_a_data_set_can_be_streamed_from_a_file_at_an_offset() -> None:
    assert C_STORE()._dataset_path is None
    source = inspect.getsource(pynetdicom.dimse_messages)
    assert "_dataset_path" in source
    assert "seek(" in source


def test_a_cancel_is_noted_while_a_request_is_served() -> None:
    source = inspect.getsource(DIMSEServiceProvider.receive_primitive)
    assert "self.cancel_req[" in source


def test_a_closed_socket_is_none_and_states_have_their_names_of_ps3_8() -> None:
    assert "self.socket = None" in inspect.getsource(AssociationSocket.close)
    assert "Sta13" in inspect.getsource(StateMachine) or "Sta13" in inspect.getsource(pynetdicom.fsm)
    assert "_kill_thread" in inspect.getsource(DULServiceProvider)


def test_the_events_that_are_handled_are_there() -> None:
    assert evt.EVT_REQUESTED.is_notification
    assert evt.EVT_ESTABLISHED.is_notification
    assert evt.EVT_CONN_CLOSE.is_notification
