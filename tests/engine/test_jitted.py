"""`jit`: what is replayed is what the function does, with the values of now, in arrays of the caller's own."""

import os
import signal
import threading

import numpy as np
import pytest
from odegrad import errors, grad, hvp, jit, odeint, ops, value_and_grad
from odegrad.engine import jitted, jitted_arguments
from odegrad.engine.backend import to_host
from odegrad.engine.cuda.replay import CudaWorkspace
from odegrad.engine.jit.layout import Unsupported
from odegrad.engine.tree import leaves
from on_device import with_kernels

RNG = np.random.default_rng(11)
A, B = RNG.standard_normal((2, 3)), RNG.standard_normal((2, 3))
CAPTURED = np.arange(3.0)

FUNCTIONS = {
    "elementwise": lambda x: np.sin(x) * 2.0 - x,
    "a tree": lambda x: {"b": (x @ x.T, np.sum(x)), "a": [x * x]},
    "the argument itself": lambda x: x,
    "the same twice": lambda x: (x + 1.0, x + 1.0),
    "constants": lambda x: (np.ones(2), 3.0, x * CAPTURED),
    "a gradient": grad(lambda x: np.sum(np.tanh(x) ** 2)),
    "a value and a gradient": value_and_grad(lambda x: np.sum(np.tanh(x @ np.ones((3, 2))))),
    "a Hessian times a vector": lambda x: hvp(lambda y: np.sum(y**4), (x,), (np.ones((2, 3)),)),
}


def counted(f):
    """f, and the list that grows with each call."""
    calls = []

    def counting(*args, **kwargs):
        calls.append(args)
        return f(*args, **kwargs)

    return counting, calls


def same(found, expected):
    pairs = zip(leaves(found), leaves(expected), strict=True)
    return all(np.allclose(a, b, rtol=1e-14, atol=0.0) and np.shape(a) == np.shape(b) for a, b in pairs)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_replay_does_what_the_function_does(name):
    f = FUNCTIONS[name]
    replayed = jit(f)
    for x in (A, B, A):
        assert same(replayed(x), f(x))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_dtypes_of_results_are_those_of_the_function(dtype):
    f = jit(lambda x: (x * 2.0, ops.real(x), x.shape[0] * 1.0))
    for _ in range(2):
        assert [np.asarray(y).dtype for y in f(A.astype(dtype))] == [
            dtype,
            A.astype(dtype).real.dtype,
            np.float64,
        ]


def test_the_function_is_called_once_for_each_kind_of_arguments():
    f, calls = counted(lambda x: x * 2.0)
    replayed = jit(f)
    for x in (A, B, A[:1], B[:1], A.astype(np.float32), {"x": A}["x"]):
        replayed(x)
    assert len(calls) == 3


def test_the_kind_that_was_not_met_for_longest_is_recorded_anew(monkeypatch, caplog):
    monkeypatch.setattr(jitted, "MAX_KINDS", 2)
    f, calls = counted(lambda x: x * 2.0)
    replayed = jit(f)
    with caplog.at_level("INFO", logger="odegrad"):
        for n in (0, 1, 0, 2, 0):  # 1 is dropped
            replayed(np.ones(n))
    assert len(calls) == 3
    assert "more than 2 kinds of arguments of counting" in caplog.text
    replayed(np.ones(1))
    assert len(calls) == 4


def test_structures_are_told_apart():
    f, calls = counted(lambda tree: sum(leaves(tree)))
    replayed = jit(f)
    for tree in ([A, B], (A, B), {"x": A, "y": B}, [A, [B]], {"x": A, "z": B}):
        assert same(replayed(tree), A + B)
    assert len(calls) == 5


def test_numbers_are_traced_and_stay_weak():
    f, calls = counted(lambda x, s, n: (x * s, s * 2.0, x**2 * n))
    replayed = jit(f)
    for s, n in ((2.0, 1), (0.5, 3), (-1.0, 4)):
        assert same(replayed(A.astype(np.float32), s, n), f(A.astype(np.float32), s, n))
        assert replayed(A.astype(np.float32), s, n)[0].dtype == np.float32
    assert len(calls) == 1 + 3


def test_strings_and_truth_values_are_part_of_the_kind():
    f = jit(lambda x, how, is_squared=False: ops.sum(x * x if is_squared else x) if how == "sum" else x)
    assert f(A, "sum") == pytest.approx(A.sum())
    assert f(A, "sum", is_squared=True) == pytest.approx((A * A).sum())
    assert same(f(A, "whole"), A)
    assert f(B, "sum") == pytest.approx(B.sum())


def test_static_arguments_may_decide_what_is_recorded():
    f, calls = counted(lambda n, x: sum(x**k for k in range(n)))
    replayed = jit(f, static_argnums=0)
    for n in (2, 3, 2):
        assert same(replayed(n, A), f(n, A))
    assert len(calls) == 2 + 3


def test_what_is_captured_stays_as_it_was():
    captured = np.ones(3)
    f = jit(lambda x, s: x * captured * s)
    f(A, 1.0)
    captured[:] = 7.0
    assert same(f(B, 2.0), 2.0 * B)


def test_a_captured_array_that_the_function_fills_again_is_read_as_it_was_at_each_use():
    def f(x):
        window, found = np.zeros(3), []
        for k in range(3):
            window[:] = 0.0
            window[k] = k + 1.0
            found.append(x @ window)
        return found

    replayed = jit(f)
    for x in (A, B):
        assert same(replayed(x), [(k + 1.0) * x[:, k] for k in range(3)])


def test_static_arguments_count_with_their_types():
    f = jit(lambda n, x: (type(n).__name__, x)[1] * (2.0 if type(n) is int else 3.0), static_argnums=0)
    assert same([f(1, A), f(1.0, A), f(True, A)], [2.0 * A, 3.0 * A, 3.0 * A])
    nested = jit(lambda n, x: x * (2.0 if type(n[0]) is int else 3.0), static_argnums=0)
    assert same([nested((1,), A), nested((1.0,), A)], [2.0 * A, 3.0 * A])


def test_what_a_replay_calls_back_is_the_function_itself():
    def solved(y):
        return odeint(lambda t, y: -y, y, [0.0, 1.0], callback=callback).ys[-1]

    def callback(step):
        if waiting:
            found.append(replayed(waiting.pop()))

    replayed = jit(solved)
    waiting, found = [], []
    expected = [replayed(B), replayed(A)]
    waiting.append(B)
    thread = threading.Thread(target=lambda: found.append(replayed(A)), daemon=True)
    thread.start()
    thread.join(60.0)
    assert not thread.is_alive()
    assert same(found, expected)


def test_two_replays_that_call_each_other_back_do_not_wait_for_each_other():
    both_inside = threading.Barrier(2, timeout=60.0)

    def solved(other):
        def callback(step):
            if threading.current_thread() is not threading.main_thread() and waiting:
                waiting.pop()
                both_inside.wait()
                found.append(replayed[other](B))

        return jit(lambda y: odeint(lambda t, y: -y, y, [0.0, 1.0], callback=callback).ys[-1])

    waiting, found, replayed = [], [], [solved(1), solved(0)]
    expected = [f(B) for f in replayed]
    waiting.extend("ab")
    threads = [threading.Thread(target=f, args=(A,), daemon=True) for f in replayed]
    for f in replayed:
        f(A)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert not any(thread.is_alive() for thread in threads)
    assert same(found, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_need_not_wait_for_a_thread_that_it_has_not():
    inside, may_go_on = threading.Event(), threading.Event()

    def callback(step):
        if threading.current_thread() is thread:
            inside.set()
            may_go_on.wait()

    replayed = jit(lambda y: odeint(lambda t, y: -y, y, [0.0, 1.0], callback=callback).ys[-1])
    thread = threading.Thread(target=replayed, args=(A,), daemon=True)
    expected = replayed(A)
    thread.start()
    inside.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # ends a child that waits
        os._exit(0 if same(replayed(A), expected) else 1)
    _, status = os.waitpid(child, 0)
    may_go_on.set()
    thread.join()
    assert status == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_that_is_forked_in_a_callback_ends_its_replay_and_begins_others():
    def callback(step):
        if waiting:
            waiting.clear()
            children.append(os.fork())

    replayed = jit(lambda y: odeint(lambda t, y: -y, y, [0.0, 1.0], callback=callback).ys[-1])
    waiting, children, found = [], [], []
    expected = replayed(A)
    waiting.append(A)
    try:
        found += [replayed(A), replayed(A)]
    finally:
        if children == [0]:
            os._exit(0 if len(found) == 2 and same(found, [expected] * 2) else 1)
    _, status = os.waitpid(children[0], 0)
    assert status == 0 and same(found, [expected] * 2)


def test_a_number_may_be_an_index():
    f = jit(lambda x, n: x[n] * 1.0)
    assert same([f(A, 0), f(A, 1), f(A, -1)], [A[0], A[1], A[-1]])


def test_whole_numbers_that_become_fractions_are_refused():
    f = jit(lambda n: (2**n, np.arange(3) * 2**n))
    assert same([f(2), f(3)], [(4, np.arange(3) * 4), (8, np.arange(3) * 8)])
    with pytest.raises(
        errors.TracedValueError, match="a whole number where the function was recorded, and is 0.5"
    ):
        f(-1)
    assert same(f(1), (2, np.arange(3) * 2))


def test_labels_are_checked_in_each_replay():
    f = jit(ops.softmax_cross_entropy)
    f(A, np.array([0, 2]))
    for wrong in ([0, -1], [3, 0]):
        with pytest.raises(errors.ArgumentError, match="labels must lie in 0..2"):
            f(A, np.array(wrong))


def test_numbers_change_without_a_copy_of_what_is_captured(monkeypatch):
    loaded = []

    def load(workspace, values):
        loaded.append(list(values.values()))
        return original(workspace, values)

    original = jitted.Workspace.load
    monkeypatch.setattr(jitted.Workspace, "load", load)
    f = jit(lambda x, s: x * CAPTURED * s)
    assert same([f(A, 1.0), f(A, 2.0)], [A * CAPTURED, A * CAPTURED * 2.0])
    assert loaded[1:] == [[2.0]]


def test_results_of_an_interpreted_replay_belong_to_the_caller(monkeypatch):
    def refuse(*_):
        raise Unsupported("this")

    monkeypatch.setattr(jitted, "partition", refuse)
    f = jit(lambda x: (x, CAPTURED, np.sum(x)))
    for given in (A, B):
        own = given.copy()
        for result in f(own):
            assert type(result) is np.ndarray
            result[...] = np.nan
        assert same(own, given)
    assert np.isfinite(CAPTURED).all()


@pytest.mark.parametrize("call", [1, 2])
def test_results_belong_to_the_caller(call):
    f = jit(lambda x: (x, 2.0 * x, CAPTURED))
    given = A.copy()
    for _ in range(call):
        results = f(given)
    for result in results:
        result[...] = np.nan
    assert np.isfinite(given).all() and np.isfinite(CAPTURED).all()
    assert same(f(B), (B, 2.0 * B, CAPTURED))


def test_inside_a_derivative_it_is_the_function_itself():
    f = jit(lambda x: np.sum(np.tanh(x) ** 2))
    f(A)
    assert same(grad(f)(A), 2.0 * np.tanh(A) / np.cosh(A) ** 2)


def test_a_value_of_an_outer_derivative_that_is_captured_keeps_its_derivative():
    def product(w):
        scaled = jit(lambda x: x * w)
        return np.sum(scaled(A)) + np.sum(scaled(B))

    assert grad(product)(3.0) == pytest.approx(A.sum() + B.sum())


def test_it_can_be_replayed_inside_of_another():
    inner = jit(lambda x: x * 2.0)
    outer = jit(lambda x: inner(x) + 1.0)
    inner(A)
    assert same([outer(A), outer(B)], [2.0 * A + 1.0, 2.0 * B + 1.0])


def test_threads_take_turns():
    f = jit(lambda x: np.tanh(x @ x.T) @ x)
    arguments = [RNG.standard_normal((30, 30)) for _ in range(4)]
    f(arguments[0])
    wrong = []

    def work(x):
        expected = np.tanh(x @ x.T) @ x
        wrong.extend(k for k in range(50) if not np.allclose(f(x), expected, rtol=1e-10))

    threads = [threading.Thread(target=work, args=(x,)) for x in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_keywords_and_the_name_of_the_function():
    def halved(x, *, by=2.0):
        """Doc."""
        return x / by

    f = jit(halved)
    assert same([f(A), f(B, by=4.0)], [A / 2.0, B / 4.0])
    assert (f.__name__, f.__doc__) == ("halved", "Doc.")


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        (lambda: jit(3), errors.ArgumentTypeError, "takes a function; got int"),
        (
            lambda: jit(lambda x: "text")(A),
            errors.ArgumentTypeError,
            "must return arrays and numbers; got str",
        ),
        (lambda: jit(lambda x: x if x.sum() > 0 else -x)(A), errors.TracedValueError, "branch"),
        (lambda: jit(lambda x: x, static_argnums=1)(A), errors.ArgumentError, "1 positional"),
        (
            lambda: jit(lambda x: x, static_argnums="x"),
            errors.ArgumentTypeError,
            "positions of arguments; got 'x'",
        ),
        (lambda: jit(lambda x, n=1: x, static_argnums=1)(A, n=2), errors.ArgumentError, "by position"),
        (lambda: jit(lambda x: x, static_argnums=0)([A]), errors.ArgumentTypeError, "hashable; got list"),
        (
            lambda: jit(lambda x, how: x)(A, {"how": {1}}),
            errors.ArgumentTypeError,
            "hashable objects; got set at '1/how'",
        ),
        (
            lambda: jit(lambda rng, x: x + rng.normal())(np.random.default_rng(0), A),
            errors.ArgumentTypeError,
            "compared by value; got a Generator at '0'",
        ),
        (
            lambda: jit(np.sum)(np.ma.masked_array(A, A > 0.0)),
            errors.ArgumentTypeError,
            "plain numpy.ndarrays; got a MaskedArray at '0'",
        ),
    ],
)
def test_misuse(wrong, error, match):
    with pytest.raises(error, match=match):
        wrong()


@pytest.mark.parametrize("module", ["odegrad.layers.some", "odegrad.engine.some", "numpy.some"])
def test_a_traced_value_is_refused_with_the_line_outside_of_the_package(module):
    namespace = {"__name__": module}
    exec("def inside(n):\n    return int(n)", namespace)
    with pytest.raises(errors.TracedValueError, match=r"test_jitted.py:\d+"):
        jit(lambda n: namespace["inside"](n))(1)


def test_a_number_that_decides_a_shape_is_told_where_it_belongs():
    with pytest.raises(TypeError) as caught:
        jit(lambda n, x: np.zeros(n) + x)(3, A)
    assert "`static_argnums`" in caught.value.__notes__[0]


def test_what_the_function_raises_leaves_nothing_behind():
    def f(x):
        if len(calls) == 1:
            raise OSError("not yet")
        return x + 1.0

    f, calls = counted(f)
    replayed = jit(f)
    with pytest.raises(OSError, match="not yet"):
        replayed(A)
    assert same(replayed(B), B + 1.0)


def test_on_a_device(xp):
    _check_on(xp)


def test_numbers_beside_what_is_captured_on_a_device(xp):
    captured = xp.asarray(CAPTURED)
    f = jit(lambda s: captured * s)
    for s in (2.0, 3.0):
        assert np.allclose(to_host(f(s)), CAPTURED * s, rtol=1e-15)


def test_times_on_the_host_beside_a_state_on_a_device(xp):
    y0, expected = xp.asarray(A), odeint(lambda t, y: -y, A, [0.0, 0.5]).ys
    for f in (
        jit(lambda y, ts: odeint(lambda t, y: -y, y, ts).ys),
        jit(lambda _, ts: odeint(lambda t, y: -y, y0, ts).ys),
    ):
        for ts in (np.array([0.0, 1.0]), np.array([0.0, 0.5])):
            found = f(y0, ts)
        assert type(found) is type(y0)
        assert np.allclose(to_host(found), expected, rtol=1e-12)


def test_buffers_belong_to_a_stream_of_a_device(device_xp, monkeypatch):
    f, calls = counted(lambda x: x * 2.0)
    replayed = jit(f)
    for stream in ("first", "second", "first"):
        monkeypatch.setattr(jitted_arguments, "place_of", lambda xp, stream=stream: (xp, 0, stream))
        replayed(device_xp.asarray(A))
    assert len(calls) == 2


def test_with_kernels_on_a_device(device_xp, monkeypatch):
    monkeypatch.setattr(jitted, "CudaWorkspace", CudaWorkspace)
    _check_on(with_kernels(device_xp, monkeypatch))


def _check_on(xp):
    f = jit(value_and_grad(lambda x: ops.sum(ops.square(ops.tanh(x @ xp.asarray(np.ones((3, 2))))))))
    plain = value_and_grad(lambda x: np.sum(np.tanh(x @ np.ones((3, 2))) ** 2))
    for x in (A, B):
        value, gradient = f(xp.asarray(x))
        assert type(gradient) is type(xp.asarray(x))
        expected = plain(x)
        assert float(value) == pytest.approx(float(expected[0]))
        assert np.allclose(gradient if xp is np else gradient.get(), expected[1])
