"""What all commands do with their options. Must not import anything heavy: every start does."""


def without_empty(pairs: list[str]) -> list[str]:
    """The `-s NAME=value` pairs that set something: an empty value is an unset one.

    Split at the first "=": a key may end with one. What has none is left for Scrapy to refuse.
    """
    return [pair for pair in pairs if "=" not in pair or pair.split("=", 1)[1].strip()]
