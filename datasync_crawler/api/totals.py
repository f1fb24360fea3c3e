"""The total of a response: the larger of its header and its body. Pure."""


def read_total(header: str, in_body: int | None) -> tuple[int | None, str | None]:
    """The total, None when neither X-Total-Count nor the body states one; and what is wrong with
    the header, None when nothing is.
    """
    header = header.strip()
    if not header:
        return in_body, None
    if not (header.isascii() and header.isdigit() and len(header) <= 15):
        return in_body, "the header X-Total-Count isn't a whole number"
    return max(int(header), in_body or 0), None
