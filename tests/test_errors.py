"""What every error's message is: one line of text, whatever it quotes."""

import pickle

from gpusvm.errors import DataError, GpuSvmError, UsageError


def test_a_message_is_one_line_that_cannot_steer_a_terminal():
    message = "a.csv: 'é\\n'\n\r\x1b[2J\x85\u2028\ud800 is no number"
    assert str(DataError(message)) == r"a.csv: 'é\n'\n\r\x1b[2J\x85\u2028\ud800 is no number"


def test_errors_travel_between_processes():
    for kind in (GpuSvmError, DataError, UsageError):
        again = pickle.loads(pickle.dumps(kind("a\nb")))
        assert type(again) is kind and str(again) == r"a\nb"
