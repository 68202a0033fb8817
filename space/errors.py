"""What a user did wrong, in one line."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

from pydantic import ValidationError

# A URL's password goes to the last @, whatever stands before it; without any, what is no port may be one.
LOGIN = re.compile(r"(?<=://)([^\s:@/\[]*):(?:\S*@|(?!\d*(?:\W|$))[^\s/]+)")
FIELD = re.compile(r"([?&][^\s=&]*(?:pass|pwd|secret|token)[^\s=&]*=)[^\s&]*", re.IGNORECASE)


class InputError(ValueError):
    """A user's mistake. Its text is the one line to show: what is wrong, where, and what is allowed."""


def without_passwords(text: str) -> str:
    """Return a text in which the passwords of URLs are hidden."""

    def hidden(found: re.Match[str]) -> str:
        return f"{found[1]}:***{'@' if found[0].endswith('@') else ''}"

    return FIELD.sub(r"\1***", LOGIN.sub(hidden, text))


def first_line(error: BaseException) -> str:
    """Return what an error, or the database's behind it, says first, without passwords."""
    said = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
    return without_passwords(said.splitlines()[0])


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return ``", did you mean 'x'?"`` for the allowed name closest to `name`, or an empty string."""
    close = get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""


def explain(error: ValidationError, where: str) -> InputError:
    """Turn pydantic's findings into one line that names `where` (a file or value), each field and its value."""
    findings: dict[str, str] = {}
    for found in error.errors():
        cause = found.get("ctx", {}).get("error")
        message = str(cause) if cause is not None else found["msg"][:1].lower() + found["msg"][1:]
        field = ".".join(str(part) for part in found["loc"])
        shown = repr(found["input"])
        if field and found["type"] not in ("missing", "union_tag_not_found"):
            message = f"{message} (got {shown if len(shown) <= 80 else shown[:77] + '...'})"
        # The same mistake in each of several stages is said once.
        findings.setdefault(message, f"{field}: {message}" if field else message)
    return InputError(f"{where}: " + "; ".join(findings.values()))
