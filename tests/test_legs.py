"""The legs of the CI: constraints that are the declared lower bounds, and a Python that is found or named."""

import sys

import legs
import pytest


@pytest.mark.compat
def test_the_oldest_constraints_are_the_lower_bounds_line_for_line():
    lines = (legs.ROOT / legs.CONSTRAINTS).read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == legs.lower_bounds()


def test_a_python_is_the_one_at_hand_where_it_has_the_version():
    version = "{}.{}".format(*sys.version_info)
    assert legs.find_python(version) == sys.executable


def test_a_leg_without_its_python_is_skipped_with_the_reason(monkeypatch, capsys):
    monkeypatch.setitem(legs.LEGS, "newest", legs.Leg(("3.99", "3.98"), None, ()))
    assert legs.run("newest") == 0
    assert "skipped: the newest leg, since no Python 3.99, 3.98 " in capsys.readouterr().out


@pytest.mark.parametrize("leg", legs.LEGS)
def test_a_warning_is_ignored_by_its_words_and_its_owner(leg):
    for whose, text in legs.LEGS[leg].warnings:
        action, message, category, *module = text.split(":")
        assert (whose != "", action, category != "") == (True, "ignore", True)
        assert message or module
