"""Plans of a library (cuDNN, cublasLt) for one device and thread: made once, then found again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import Generic, TypeVar

P = TypeVar("P")  # what describes a problem
Q = TypeVar("Q")  # its plan


class PlanStore(ABC, Generic[P, Q]):
    """The latest plans, None for what has none; the one unused for longest is dropped beyond `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.plans: OrderedDict[P, Q | None] = OrderedDict()

    @abstractmethod
    def made(self, problem: P) -> Q | None:
        """A new plan of a problem, None where the library has none."""

    def plan(self, problem: P) -> Q | None:
        """The plan of a problem."""
        if problem not in self.plans:
            self.plans[problem] = self.made(problem)
            if len(self.plans) > self._most:
                self.plans.popitem(last=False)
        self.plans.move_to_end(problem)
        return self.plans[problem]
