"""A forked child solves, whatever locks other threads of its parent held when it was made."""

import os
import subprocess
import sys

import pytest

SOLVING = """
import os, signal, sys, threading, warnings
import numpy as np
from odegrad import odeint
from odegrad.engine import program
from odegrad.solvers import compiled

lock = {"programs": program._lock, "compiled": compiled._lock, "buffers": compiled.pool._lock}[sys.argv[1]]

def solve():
    return odeint(lambda t, y: -y, np.ones(3), np.array([0.0, 1.0])).ys

expected, held = solve(), threading.Event()

def hold():
    with lock:
        held.set()
        threading.Event().wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()
warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of any fork of a process with threads
child = os.fork()
if child == 0:
    signal.alarm(15)  # it ends where it would wait for ever
    os._exit(0 if np.array_equal(solve(), expected) else 3)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("lock", ["programs", "compiled", "buffers"])
def test_a_lock_that_another_thread_held_is_free(lock):
    """In a process of its own, so that the threads of the test runner are not forked."""
    command = [sys.executable, "-c", SOLVING, lock]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
