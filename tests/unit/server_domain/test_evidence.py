"""Rules V1 to V4 of server.domain.evidence."""

import pytest

from fleet_protocol.errors import CODES, Fault
from fleet_protocol.messages import OUTCOMES
from server.domain.evidence import word


def said(outcome, code=None, *, version="2"):
    return word(outcome, code, version=version, wanted="2")


def test_v1_a_commit_counts_for_its_own_version_only():
    assert said("committed") == "committed"
    assert said("committed", "unhealthy") == "committed", "an operator's rollback that failed left it as it was"
    assert said("committed", version="1") is None


@pytest.mark.parametrize("outcome", ["rolled_back", "failed", "refused"])
@pytest.mark.parametrize("code", [code.name for code in CODES.values() if code.fault is not Fault.POLICY])
def test_v2_every_other_end_under_every_other_code_is_a_failure(outcome, code):
    ordered = (outcome, code) == ("rolled_back", "withdrawn")
    assert said(outcome, code) == ("withdrawn" if ordered else "failed")


def test_v2_a_failure_without_a_code_is_one_unless_it_is_a_way_back():
    assert [said("failed"), said("refused")] == ["failed", "failed"]


@pytest.mark.parametrize("end", [("rolled_back", None), ("rolled_back", "withdrawn"), ("abandoned", "withdrawn")])
def test_v3_who_was_ordered_back_and_went_has_no_vote(end):
    assert said(*end) == "withdrawn"
    assert said(*end, version="1") == "withdrawn"


def test_v4_what_goes_on_or_was_held_is_no_word_yet():
    assert said(None) is said("abandoned") is said("abandoned", "class") is None


def test_every_outcome_is_covered():
    assert {outcome: said(outcome, "io") for outcome in OUTCOMES} == {
        "committed": "committed",
        "rolled_back": "failed",
        "failed": "failed",
        "refused": "failed",
        "abandoned": None,
    }
