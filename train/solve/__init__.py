"""Textbook problems with stored solutions, and what a method makes of them."""

from .problem import Textbook, mirrored
from .registry import PROBLEMS, named_problem

__all__ = ["PROBLEMS", "Textbook", "mirrored", "named_problem"]
