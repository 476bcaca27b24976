"""The pool of idle buffers: finds what fits, forgets what was not used for longest."""

from dataclasses import dataclass

from odegrad.solvers.buffer_pool import BufferPool


@dataclass(eq=False)
class Buffers:
    nbytes: int


def refuse():
    raise AssertionError("idle buffers were there")


def test_buffers_come_back_to_the_key_they_were_given_for():
    pool, first, second = BufferPool(100), Buffers(10), Buffers(10)
    pool.give_back("a", first)
    pool.give_back("b", second)
    assert pool.take("a", refuse) is first
    assert pool.take("b", refuse) is second


def test_buffers_in_use_are_not_given_twice():
    pool, first = BufferPool(100), Buffers(10)
    pool.give_back("a", first)
    assert pool.take("a", refuse) is first
    fresh = Buffers(10)
    assert pool.take("a", lambda: fresh) is fresh


def test_the_least_recently_used_are_dropped():
    pool = BufferPool(25)
    for key in "abc":
        pool.give_back(key, Buffers(10))
    assert pool.nbytes == 20
    fresh = Buffers(1)
    assert pool.take("a", lambda: fresh) is fresh
    assert pool.take("b", refuse).nbytes == 10


def test_the_last_one_stays_whatever_its_size():
    pool, large = BufferPool(25), Buffers(1000)
    pool.give_back("a", Buffers(10))
    pool.give_back("b", large)
    assert pool.nbytes == 1000
    assert pool.take("b", refuse) is large


def test_buffers_of_a_dropped_program_are_forgotten():
    pool = BufferPool(100)
    for key in "ab":
        pool.give_back(key, Buffers(10))
    pool.drop(lambda key: key == "a")
    assert pool.nbytes == 10
