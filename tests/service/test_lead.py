"""How far a reader is ahead of what was decided."""

from pipeline.service.lead import Lead


def test_no_second_dropped_sample_is_told_of_while_the_first_is_undecided() -> None:
    lead = Lead(None)
    lead.sent()
    assert not lead.unheard
    lead.sent(dropped=True)
    assert lead.unheard
    lead.decided()  # the one before it
    assert lead.unheard
    lead.decided()
    assert not lead.unheard


def test_the_first_sample_that_is_dropped_after_another_one_is_always_told_of() -> None:
    lead = Lead(None)
    lead.sent(dropped=True)
    lead.sent()
    assert not lead.unheard
