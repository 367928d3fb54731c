"""Checks as functions without arguments, one for each rule of the contract of a method, kind or metric."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.methods import Method
from harness.metrics import MetricSpec
from harness.tasks import Kind

if TYPE_CHECKING:
    import pytest


class CheckError(AssertionError):
    """Violation of a contract; the message says what was expected and what was found."""


@dataclass(frozen=True)
class Check:
    """One check of one method, kind or metric; call it to run it.

    Attributes:
        subject: name of the checked object, and its backbone.
        name: the rule of the contract.
        run: function that raises `CheckError` if the rule is violated.
    """

    subject: str
    name: str
    run: Callable[[], None]

    def __call__(self) -> None:
        """Run the check.

        Raises:
            CheckError: the contract is violated.
        """
        try:
            self.run()
        except CheckError as error:
            raise CheckError(f"{self.subject}: {self.name}: {error}") from error
        except Exception as error:
            error.add_note(f"{self.subject}: raised while it was checked that it {self.name}.")
            raise

    def __str__(self) -> str:
        return f"{self.subject}: {self.name}"


def expect(holds: object, expected: str, found: object) -> None:
    """Raise `CheckError` unless something holds.

    Args:
        holds: whether the rule holds.
        expected: the rule, as a phrase after "expected".
        found: behaviour of the method, kind or metric instead.
    """
    if not holds:
        raise CheckError(f"expected {expected}; found {found}")


def checks_of(subject: type[Method] | Kind | MetricSpec, *, skip: Collection[str] = ()) -> Iterator[Check]:
    """Return the checks of a method's class, a kind or a metric.

    Args:
        subject: object to check; it must be registered.
        skip: names of checks to leave out ("learns").

    Raises:
        TypeError: it is not a method's class, a kind or a metric.
    """
    made: Iterable[Check]
    if isinstance(subject, type) and issubclass(subject, Method):
        from harness.testing.method_checks import method_checks

        made = method_checks(subject)
    elif isinstance(subject, Kind):
        from harness.testing.kind_checks import kind_checks

        made = kind_checks(subject)
    elif isinstance(subject, MetricSpec):
        from harness.testing.metric_checks import metric_checks

        made = metric_checks(subject)
    else:
        raise TypeError(f"{subject!r:.80} was given; expected a subclass of Method, a Kind or a MetricSpec.")
    return (check for check in made if check.name not in skip)


def _run_all(subject: Any, skip: Collection[str]) -> None:
    for check in checks_of(subject, skip=skip):
        check()


def check_method(cls: type[Method], *, skip: Collection[str] = ()) -> None:
    """Run all checks of a method; takes up to a minute for a method that trains inside a transformer.

    Args:
        cls: the method's class, registered with `@method`.
        skip: names of checks to leave out: "learns" for a method that ignores the text.

    Raises:
        CheckError: the method breaks its contract; the message says what was expected and what it did.
    """
    _run_all(cls, skip)


def check_kind(kind: Kind, *, skip: Collection[str] = ()) -> None:
    """Run all checks of a kind of task.

    Args:
        kind: registered with `kinds.add`.
        skip: names of checks that are left out.

    Raises:
        CheckError: the kind breaks its contract.
    """
    _run_all(kind, skip)


def check_metric(metric: MetricSpec, *, skip: Collection[str] = ()) -> None:
    """Run all checks of a metric.

    Args:
        metric: registered with `metrics.add`.
        skip: names of checks that are left out.

    Raises:
        CheckError: the metric breaks its contract.
    """
    _run_all(metric, skip)


def parametrize_checks(
    subjects: Iterable[type[Method] | Kind | MetricSpec], *, skip: Collection[str] = ()
) -> pytest.MarkDecorator:
    """Return a decorator that gives a pytest function each check of some methods, kinds and metrics.

    Example:
        >>> @parametrize_checks([MyMethod, my_kind])  # doctest: +SKIP
        ... def test_contract(check):
        ...     check()

    Args:
        subjects: methods, kinds and metrics to check.
        skip: names of checks to leave out.
    """
    import pytest

    checks = [check for subject in subjects for check in checks_of(subject, skip=skip)]
    return pytest.mark.parametrize("check", [pytest.param(check, id=str(check)) for check in checks])
