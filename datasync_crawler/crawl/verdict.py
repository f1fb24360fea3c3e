"""The verdict: whether a pass proves that everything served is stored. Pure."""

from dataclasses import dataclass

from datasync_crawler.crawl.seams import LEAST_WIDE
from datasync_crawler.crawl.values import PassFigures, Verdict


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence of one pass.

    `served`: events from the front to the end, by the API's offsets. `total`: the API's, None if it
    gives none. `doubts`: seams that couldn't be joined. `missing`: a sentence about what couldn't
    be fetched. `end` and `head`: whether they were seen. `short`: ids that the API is known to
    serve more than once. `is_second`: an earlier pass has read everything, too. `has_seams`: pages
    overlap; else (numbered pages) counts are the proof. `too_small`: the page size, where it is too
    small for an order that isn't stable.
    """

    figures: PassFigures
    served: int
    total: int | None
    doubts: int = 0
    missing: str = ""
    end: bool = True
    head: bool = True
    short: int = 0
    is_second: bool = False
    has_seams: bool = True
    too_small: int = 0

    @property
    def left(self) -> int:
        """By how much the total exceeds the distinct ids."""
        return 0 if self.total is None else max(self.total - self.figures.distinct, 0)


def nothing_served(total: int | None, *, is_first: bool) -> Verdict:
    """The first answer holds no event. *is_first*: nothing was ever read into this schema."""
    if not total:
        return Verdict(complete=False, sentences=("the API serves no events",), rerun=True)
    said = f"the API counts {total:,} events, and its first answer holds none"
    if is_first:
        said += (
            ": EVENTS_KEY doesn't name the list that they are in, or OFFSET_PARAM, LIMIT_PARAM or "
            "QUERY_PARAMS ask for none. Look at an answer with scrapy fetch"
        )
    return Verdict(complete=False, sentences=(said,), rerun=not is_first, setup=is_first)


def judge(e: Evidence) -> Verdict:
    """The verdict on one pass."""
    if e.missing:
        return Verdict(complete=False, sentences=(e.missing,), rerun=True)
    if e.figures.unbalanced:
        sentence = (
            f"{e.figures.unbalanced} ranges of the ledger don't add up: somebody has changed the "
            "table checkpoint; crawl into a new DB_SCHEMA"
        )
        return Verdict(complete=False, sentences=(sentence,))
    if moving := _moving(e):
        return Verdict(complete=False, sentences=(moving,), again=True, rerun=True)
    if e.total is not None and e.total > e.served:
        sentence = (
            f"offsets {e.served}–{e.total - 1} are missing: the API counts {e.total:,} events, but "
            f"serves none behind the first {e.served:,}. "
        )
        if e.total == e.served + 1:
            sentence += (
                "If offset 0 brings its second event, the first can't be requested by offset: set "
                "PAGINATION=cursor. "
            )
        sentence += (
            "If its total is an estimate, set TOTAL_KEY=none, and the end of the pages is what "
            "counts"
        )
        return Verdict(complete=False, sentences=(sentence,))
    if uncounted := _uncounted(e):
        return Verdict(complete=False, sentences=(uncounted,), again=True, rerun=True)
    return Verdict(
        complete=True,
        sentences=_asides(e),
        served=e.served,
        total=e.total,
        stored=e.figures.distinct - e.figures.rejected_now,
        rejected=e.figures.rejected_now,
    )


def _moving(e: Evidence) -> str:
    """Why the chain of seams is broken; "" when it isn't."""
    if not e.end:
        return "the end of the set wasn't found: events moved while they were read"
    if not e.head:
        return "the front of the set wasn't found again: events moved while they were read"
    if e.doubts:
        return (
            f"{e.doubts:,} neighbouring pages share no event, or events between them stand in "
            "another order each time: the API's order isn't stable, and events may be missing"
        )
    if e.too_small and e.total is None:
        return (
            f"the API's order isn't stable, it gives no total, and pages of {e.too_small} events "
            f"are too small to prove anything: set BULK_PAGE_SIZE to {3 * LEAST_WIDE} or more"
        )
    return ""


def _uncounted(e: Evidence) -> str:
    """Why the counts don't prove the set; "" when distinct ids match the total, or a second pass
    has brought nothing new.
    """
    if e.is_second and e.figures.inserted == 0:
        return ""
    if not e.has_seams:
        stood = e.figures.totals is not None and len(set(e.figures.totals)) == 1
        if not stood or e.total is None or e.total - e.figures.distinct != e.short:
            return (
                "pages that don't overlap prove nothing by themselves, and the API's total doesn't "
                "match the distinct ids or didn't stand still: a second pass has to bring nothing "
                "new"
            )
    if e.left > e.short:
        return (
            f"{e.left:,} ids fewer are stored than the API's total of {e.total:,} says, and each "
            "pass over everything has found new ones: the API's order isn't stable"
        )
    return ""


def _asides(e: Evidence) -> tuple[str, ...]:
    if not e.left:
        return ()
    return (f"{e.left:,} of the API's {e.total:,} are ids that it serves more than once.",)
