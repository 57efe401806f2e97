"""Code that decides a result: a source for each kind, whose `subject` is hashed, and what is changed in it.

Below a line of dashes stands a second module, by the name of ``{helpers}`` in the first one.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["KINDS", "Kind"]


class Kind(NamedTuple):
    """A source, a part of it, and what takes its place."""

    source: str
    old: str
    new: str


KINDS = {
    "body": Kind(
        """
def subject(x):
    return x + 1
""",
        "x + 1",
        "x + 2",
    ),
    "operator": Kind(
        """
def subject(x):
    return x + 1
""",
        "x + 1",
        "x - 1",
    ),
    "method called": Kind(
        """
def subject(x):
    return x.lower()
""",
        "lower",
        "upper",
    ),
    "default": Kind(
        """
def subject(x, shift=1):
    return x + shift
""",
        "shift=1",
        "shift=2",
    ),
    "keyword default": Kind(
        """
def subject(x, *, shift=1):
    return x + shift
""",
        "shift=1",
        "shift=2",
    ),
    "what is guarded": Kind(
        """
def subject(x):
    try:
        x()
        x()
    except ValueError:
        pass
""",
        "    try:\n        x()\n",
        "    x()\n    try:\n",
    ),
    "closure": Kind(
        """
def make(n):
    return lambda x: x + n
subject = make(1)
""",
        "make(1)",
        "make(2)",
    ),
    "code of a closure": Kind(
        """
def make(n):
    return lambda x: x + n
subject = make(1)
""",
        "x + n",
        "x * n",
    ),
    "global constant": Kind(
        """
SHIFT = 1
def subject(x):
    return x + SHIFT
""",
        "SHIFT = 1",
        "SHIFT = 2",
    ),
    "global list": Kind(
        """
SHIFTS = [1, 2]
def subject(x):
    return x + sum(SHIFTS)
""",
        "[1, 2]",
        "[1, 3]",
    ),
    "order of a global dict": Kind(
        """
RULES = {'a': 'b', 'b': 'c'}
def subject(x):
    for rule in RULES.items():
        x = x.replace(*rule)
""",
        "'a': 'b', 'b': 'c'",
        "'b': 'c', 'a': 'b'",
    ),
    "global array": Kind(
        """
import numpy as np
TABLE = np.arange(3)
def subject(x):
    return TABLE[x]
""",
        "np.arange(3)",
        "np.arange(3)[::-1]",
    ),
    "global object": Kind(
        """
class Table:
    def __init__(self, n):
        self.n = n
TABLE = Table(1)
def subject(x):
    return TABLE.n
""",
        "Table(1)",
        "Table(2)",
    ),
    "helper": Kind(
        """
def helper(x):
    return x + 1
def subject(x):
    return helper(x)
""",
        "x + 1",
        "x + 2",
    ),
    "helper of a helper": Kind(
        """
def last(x):
    return x + 1
def helper(x):
    return last(x)
def subject(x):
    return helper(x)
""",
        "x + 1",
        "x + 2",
    ),
    "helper that calls back": Kind(
        """
def helper(x):
    return subject(x - 1) + 1
def subject(x):
    return helper(x) if x else 0
""",
        "+ 1",
        "+ 2",
    ),
    "which helper": Kind(
        """
def one(x):
    return x
def other(x):
    return -x
helper = one
def subject(x):
    return helper(x)
""",
        "helper = one",
        "helper = other",
    ),
    "what comes out of a package": Kind(
        """
from numpy import sin as helper
def subject(x):
    return helper(x)
""",
        "sin",
        "cos",
    ),
    "helper in a nested function": Kind(
        """
def helper(x):
    return x + 1
def subject(x):
    return [helper(y) for y in map(lambda z: helper(z), x)]
""",
        "x + 1",
        "x + 2",
    ),
    "lambda": Kind(
        """
subject = lambda x: x + 1
""",
        "x + 1",
        "x + 2",
    ),
    "nested function": Kind(
        """
def subject(x):
    def inner(y):
        return y + 1
    return inner(x)
""",
        "y + 1",
        "y + 2",
    ),
    "partial's argument": Kind(
        """
import functools
def add(x, n):
    return x + n
subject = functools.partial(add, n=1)
""",
        "n=1",
        "n=2",
    ),
    "partial's function": Kind(
        """
import functools
def add(x, n):
    return x + n
subject = functools.partial(add, n=1)
""",
        "x + n",
        "x * n",
    ),
    "decorated": Kind(
        """
import functools
def twice(f):
    @functools.wraps(f)
    def call(x):
        return f(f(x))
    return call
@twice
def subject(x):
    return x + 1
""",
        "x + 1",
        "x + 2",
    ),
    "decorator": Kind(
        """
import functools
def twice(f):
    @functools.wraps(f)
    def call(x):
        return f(f(x))
    return call
@twice
def subject(x):
    return x + 1
""",
        "f(f(x))",
        "f(f(f(x)))",
    ),
    "cached": Kind(
        """
import functools
@functools.lru_cache
def subject(x):
    return x + 1
""",
        "x + 1",
        "x + 2",
    ),
    "method": Kind(
        """
class Model:
    def fit(self):
        return 1
subject = Model()
""",
        "return 1",
        "return 2",
    ),
    "method of a bound one": Kind(
        """
class Model:
    def fit(self):
        return 1
subject = Model().fit
""",
        "return 1",
        "return 2",
    ),
    "class method": Kind(
        """
class Model:
    @classmethod
    def fit(cls):
        return 1
subject = Model
""",
        "return 1",
        "return 2",
    ),
    "static method": Kind(
        """
class Model:
    @staticmethod
    def fit():
        return 1
subject = Model
""",
        "return 1",
        "return 2",
    ),
    "property": Kind(
        """
class Model:
    @property
    def n(self):
        return 1
subject = Model()
""",
        "return 1",
        "return 2",
    ),
    "cached property": Kind(
        """
import functools
class Model:
    @functools.cached_property
    def n(self):
        return 1
subject = Model()
""",
        "return 1",
        "return 2",
    ),
    "class attribute": Kind(
        """
class Model:
    n = 1
subject = Model()
""",
        "n = 1",
        "n = 2",
    ),
    "attribute": Kind(
        """
class Model:
    pass
subject = Model()
subject.n = 1
""",
        "n = 1",
        "n = 2",
    ),
    "slot": Kind(
        """
class Model:
    __slots__ = ('n',)
subject = Model()
subject.n = 1
""",
        "n = 1",
        "n = 2",
    ),
    "base class": Kind(
        """
class Base:
    def fit(self):
        return 1
class Model(Base):
    pass
subject = Model()
""",
        "return 1",
        "return 2",
    ),
    "which base": Kind(
        """
class A:
    pass
class B:
    pass
class Model(A):
    pass
subject = Model()
""",
        "Model(A)",
        "Model(B)",
    ),
    "metaclass": Kind(
        """
class Meta(type):
    def __call__(cls):
        return 1
class Model(metaclass=Meta):
    pass
subject = Model
""",
        "return 1",
        "return 2",
    ),
    "super's class": Kind(
        """
class Base:
    def fit(self):
        return 1
class Model(Base):
    def fit(self):
        return super().fit()
subject = Model
""",
        "return 1",
        "return 2",
    ),
    "helper of a method": Kind(
        """
def helper():
    return 1
class Model:
    def fit(self):
        return helper()
subject = Model()
""",
        "return 1",
        "return 2",
    ),
    "dataclass": Kind(
        """
import dataclasses
@dataclasses.dataclass
class Model:
    n: int = 1
subject = Model
""",
        "= 1",
        "= 2",
    ),
    "abstract class": Kind(
        """
import abc
class Base(abc.ABC):
    @abc.abstractmethod
    def fit(self): ...
class Model(Base):
    def fit(self):
        return 1
subject = Model()
""",
        "return 1",
        "return 2",
    ),
    "enumeration": Kind(
        """
import enum
class Kind(enum.Enum):
    A = 1
def subject():
    return Kind.A.value
""",
        "A = 1",
        "A = 2",
    ),
    "estimator": Kind(
        """
from sklearn.base import BaseEstimator, TransformerMixin
class Model(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self
    def transform(self, X):
        return X + 1
subject = Model()
""",
        "X + 1",
        "X + 2",
    ),
    "function of a transformer": Kind(
        """
from sklearn.preprocessing import FunctionTransformer
subject = FunctionTransformer(lambda x: x + 1)
""",
        "x + 1",
        "x + 2",
    ),
    "function of a module": Kind(
        """
import {helpers} as helpers
def subject(x):
    return helpers.helper(x)
--
def helper(x):
    return x + 1
""",
        "x + 1",
        "x + 2",
    ),
    "import inside": Kind(
        """
def subject(x):
    from {helpers} import helper
    return helper(x)
--
def helper(x):
    return x + 1
""",
        "x + 1",
        "x + 2",
    ),
    "import of a module inside": Kind(
        """
def subject(x):
    import {helpers} as h
    return h.helper(x)
--
def helper(x):
    return x + 1
""",
        "x + 1",
        "x + 2",
    ),
    "module that a function was made with": Kind(
        """
def make():
    import {helpers} as h
    return lambda x: h.helper(x)
subject = make()
--
def helper(x):
    return x + 1
""",
        "x + 1",
        "x + 2",
    ),
}
