"""Rooted trees and the order conditions of Runge-Kutta methods, generated and not read from a table.

A rooted tree is the sorted tuple of its branches, each a rooted tree; the single node is ().
Source of the conditions, sum_i b_i Phi_i(t) = 1 / gamma(t): Hairer, Norsett & Wanner (1993), theorem II.2.13.
"""

from __future__ import annotations

import decimal
from fractions import Fraction
from functools import cache
from itertools import combinations_with_replacement
from math import prod

DIGITS = decimal.Context(prec=60)


@cache
def trees(order):
    """All rooted trees with `order` nodes."""
    return sorted({tuple(sorted(branches)) for branches in forests(order - 1, order - 1)})


def forests(nodes, largest):
    """All multisets of trees with `nodes` nodes together, none larger than `largest`."""
    if nodes == 0:
        yield ()
        return
    for size in range(min(nodes, largest), 0, -1):
        for count in range(1, nodes // size + 1):
            for chosen in combinations_with_replacement(trees(size), count):
                for rest in forests(nodes - size * count, size - 1):
                    yield (*chosen, *rest)


@cache
def size_of(tree):
    return 1 + sum(map(size_of, tree))


@cache
def density(tree):
    """gamma(t): the product of the sizes of all subtrees."""
    return size_of(tree) * prod(map(density, tree))


def in_digits(value):
    """A fraction rounded to 60 digits."""
    return DIGITS.divide(decimal.Decimal(value.numerator), decimal.Decimal(value.denominator))


class Conditions:
    """The order conditions for sets of weights over stages with the given rows of `a`.

    `number` turns a coefficient into what is computed with: nothing (exact fractions), or `in_digits`.
    """

    def __init__(self, rows, number=lambda value: value):
        self.number = number
        self.rows = [[(j, number(a)) for j, a in enumerate(row) if a] for row in rows]
        self._known = {(): [number(Fraction(1))] * len(self.rows)}

    def stage_weights(self, tree):
        """Phi_i(t) for each stage i: the product over branches u of sum_j a_ij Phi_j(u)."""
        if tree not in self._known:
            branches = [self.stage_weights(branch) for branch in tree]
            self._known[tree] = [
                prod((sum(a * weights[j] for j, a in row) for weights in branches), start=1)
                for row in self.rows
            ]
        return self._known[tree]

    def residue(self, weights, tree, goal=Fraction(1)):
        """(sum_i w_i Phi_i(t) - goal / gamma(t), the size of what was summed)."""
        with decimal.localcontext(DIGITS):
            terms = [
                self.number(w) * phi for w, phi in zip(weights, self.stage_weights(tree), strict=True) if w
            ]
            return sum(terms) - self.number(goal / density(tree)), 1 + sum(map(abs, terms))
