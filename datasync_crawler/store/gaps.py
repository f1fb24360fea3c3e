"""The gaps of a pass, for the planner and the proof."""

from datasync_crawler.crawl.values import Gap
from datasync_crawler.store.statements import Rows, Statements


def find_gaps(
    statements: Statements, pass_no: int, total: int, *, after: int = 0, most: int
) -> list[Gap]:
    """What the chain of a pass leaves out of [after, total), from at most *most* gaps of its
    ranges. *statements* hold those of ``sql/gaps.sql``.
    """
    longest = statements.run("longest_range")[0][0]
    bounds = {"pass": pass_no, "total": total, "after": after}
    rows = statements.run("gaps", **bounds, **{"from": after - longest, "most": most})
    if len(rows) < most:
        reach, floor = statements.run("reach_below", **bounds)[0]
        if max(after, reach) < total:
            rows.append((max(after, reach), total, floor))
    base = statements.run("base", **bounds)
    return [gap for row in rows for gap in _without(Gap(*row), base)]


def _without(gap: Gap, base: Rows) -> list[Gap]:
    """The gap less the part that the base of the pass covers."""
    if not base:
        return [gap]
    first, stop = base[0][0], base[0][1]
    parts = (
        Gap(gap.first, min(gap.stop, first), gap.floor),
        Gap(max(gap.first, stop), gap.stop, gap.floor),
    )
    return [part for part in parts if part.first < part.stop]
