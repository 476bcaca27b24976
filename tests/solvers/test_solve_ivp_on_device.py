"""solve_ivp with its state on a device: the results of the host, and no more crossings than its steps need."""

import numpy as np
import pytest
from odegrad.engine.backend import transfers
from odegrad.solvers import solve_ivp
from oracles import host

START = np.array([1.0, 0.5])


def spring(t, y, k=2.0):
    """Fills an array in place, which no trace could follow."""
    slope = y * 0.0
    slope[0] = y[1]
    slope[1] = -k * y[0]
    return slope


def crossing(t, y, k=2.0):
    return y[0]


def both(xp, **options):
    return [solve_ivp(spring, (0.0, 3.0), y0, **options) for y0 in (START, xp.asarray(START))]


OPTIONS = {
    "steps": {},
    "RK23": {"method": "RK23"},
    "t_eval": {"t_eval": [0.5, 1.0, 2.5]},
    "events": {"events": crossing},
    "args": {"args": (3.0,)},
    "first step": {"first_step": 0.1},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_results_are_those_of_the_host(device_xp, options):
    theirs, ours = both(device_xp, rtol=1e-8, atol=1e-8, **options)
    assert isinstance(ours.y, device_xp.ndarray) and isinstance(ours.t, np.ndarray)
    np.testing.assert_allclose(ours.t, theirs.t, rtol=1e-12)
    np.testing.assert_allclose(host(ours.y), theirs.y, rtol=1e-10, atol=1e-12)
    assert (ours.nfev, ours.message) == (theirs.nfev, theirs.message)


def test_events_have_the_times_and_states_of_the_host(device_xp):
    theirs, ours = both(device_xp, events=crossing, rtol=1e-8, atol=1e-8)
    assert len(ours.t_events[0]) == 1
    np.testing.assert_allclose(ours.t_events[0], theirs.t_events[0], rtol=1e-10)
    np.testing.assert_allclose(host(ours.y_events[0]), theirs.y_events[0], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("t", [1.2, [0.1, 1.2, 2.9]])
def test_dense_output_is_that_of_the_host(device_xp, t):
    theirs, ours = both(device_xp, dense_output=True)
    np.testing.assert_allclose(host(ours.sol(t)), theirs.sol(t), rtol=1e-10)


def test_an_interval_of_length_zero(device_xp):
    found = solve_ivp(spring, (1.0, 1.0), device_xp.asarray(START), events=crossing)
    assert host(found.y).T.tolist() == [START.tolist()] * 2 and found.y_events[0].shape == (0, 2)


def test_times_may_lie_on_the_device(device_xp):
    times = device_xp.asarray(np.array([0.0, 1.0, 3.0]))
    found = solve_ivp(spring, times[::2], device_xp.asarray(START), t_eval=times)
    assert found.t.tolist() == [0.0, 1.0, 3.0]


def test_an_attempted_step_costs_one_read(device_xp):
    counts = []
    for end in (3.0, 30.0):
        before = transfers().reads
        found = solve_ivp(spring, (0.0, end), device_xp.asarray(START), warn_stiff=False)
        counts.append((len(found.t), transfers().reads - before, found.nfev))
    (few, reads, nfev), (many, more, nfev_more) = counts
    attempts = (nfev_more - nfev) / 6
    assert many > few and more - reads <= attempts + 1


def test_methods_that_ask_for_jacobians_are_refused(device_xp):
    with pytest.raises(TypeError, match="method='radau5' asks for them; got `y0` of cupy"):
        solve_ivp(spring, (0.0, 1.0), device_xp.asarray(START), "Radau")


def test_a_list_of_numbers_goes_to_the_device(device_xp):
    before = transfers().writes
    found = solve_ivp(lambda t, y: [1.0, 2.0], (0.0, 1.0), device_xp.asarray(START))
    np.testing.assert_allclose(host(found.y)[:, -1], START + [1.0, 2.0], rtol=1e-12)
    assert transfers().writes - before >= found.nfev


def test_slopes_on_the_host_are_refused(device_xp):
    with pytest.raises(TypeError, match="on the device, where y is; got one of numpy"):
        solve_ivp(lambda t, y: np.ones(2), (0.0, 1.0), device_xp.asarray(START))
