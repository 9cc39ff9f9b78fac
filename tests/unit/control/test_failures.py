"""What a FailureReason says, of log lines as servers really write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline_service.control.endpoints.failures import (
    FAILURE_LENGTH,
    failure_message,
    failure_text,
)
from ridgeline_service.endings import is_out_of_memory, sentences, without_frames
from ridgeline_service.store.states import Reason

USER_CODE_FAILED = """\
Importing /opt/ml/model/code/inference.py
Traceback (most recent call last):
  File "/srv/ridgeline/serving/framework/server.py", line 62, in main
    hosting.model = load_model(settings, hosting.stage)
                    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/opt/ml/model/code/inference.py", line 3, in model_fn
    weights = table["w"]
              ~~~~~^^^^^
KeyError: 'w'
The model could not be loaded: KeyError('w')""".splitlines()

BAD_SETTING = """\
ERROR ridgeline_service.serving.llm.server: The model could not be loaded
Traceback (most recent call last):
  File "/srv/ridgeline/serving/llm/server.py", line 132, in _load
    settings, model = self._loader(self.replica, Mailbox(loop), seams)
                      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/srv/ridgeline/serving/llm/settings.py", line 130, in integer
    raise InvalidSetting(
    ...<2 lines>...
    )
ridgeline_service.serving.llm.errors.InvalidSetting: OPTION_MAX_MODEL_LEN=x is not valid.
Allowed: a whole number, at least 2.""".splitlines()


def test_of_a_traceback_the_users_own_frames_are_kept():
    assert without_frames(USER_CODE_FAILED, ("/opt/ml/model",)) == [
        "Importing /opt/ml/model/code/inference.py",
        '  File "/opt/ml/model/code/inference.py", line 3, in model_fn',
        '    weights = table["w"]',
        "KeyError: 'w'",
        "The model could not be loaded: KeyError('w')",
    ]


def test_a_bad_setting_is_named_first_and_no_traceback_fills_the_reason():
    cause = "OPTION_MAX_MODEL_LEN=x is not valid. Allowed: a whole number, at least 2."
    text = failure_text(Reason.LOAD_FAILED, failure_message(Reason.LOAD_FAILED, cause, BAD_SETTING))
    assert text.startswith(
        "The model server could not load the model: OPTION_MAX_MODEL_LEN=x is not valid."
    )
    assert "/srv" not in text
    assert text.endswith("\nAllowed: a whole number, at least 2.")


def test_as_many_of_the_last_lines_are_kept_as_there_is_room_for():
    log = [f"line {number} {'.' * 150}" for number in range(20)]
    message = failure_message(Reason.PROCESS_DIED, "it exited with status 1.", log)
    text = failure_text(Reason.PROCESS_DIED, message)
    assert text.startswith("The model server ended by itself: it exited with status 1.")
    assert text.endswith(log[-1])
    assert FAILURE_LENGTH - 170 < len(text) <= FAILURE_LENGTH


@given(
    reason=st.sampled_from([reason for reason in Reason if reason.words]),
    cause=st.text(max_size=3000),
    log=st.lists(st.text(max_size=400), max_size=30),
)
def test_any_failure_fits_and_begins_with_its_words(reason, cause, log):
    text = failure_text(reason, failure_message(reason, cause, log))
    assert len(text) <= FAILURE_LENGTH
    assert text.startswith(reason.words.rstrip("."))


@pytest.mark.parametrize(
    "line",
    [
        "MemoryError",
        "numpy.core._exceptions._ArrayMemoryError: Unable to allocate 8.00 GiB",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate "
        "memory: you tried to allocate 8589934592 bytes. Error code 12 (Cannot allocate memory)",
        "terminate called after throwing an instance of 'std::bad_alloc'",
    ],
)
def test_refused_allocations_are_recognised(line):
    assert is_out_of_memory("", ["starting", line])
    assert not is_out_of_memory("it exited", ["plenty of memory", "MemoryErrorHandler is set up"])


def test_a_message_and_its_hint_are_two_sentences():
    assert sentences("It is no archive", "Upload it again.") == "It is no archive. Upload it again."
    assert sentences("Why?", "", " Because") == "Why? Because"


@pytest.mark.parametrize("reason", list(Reason))
def test_a_next_step_never_repeats_the_words(reason):
    step = reason.next_step("e")
    assert "{" not in step
    assert not step or step not in reason.words
