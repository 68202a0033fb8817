"""What a user did wrong, in one line."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

# A URL's password goes to the last @, whatever stands before it; without any, what is no port may be one.
LOGIN = re.compile(r"(?<=://)([^\s:@/\[]*):(?:\S*@|(?!\d*(?:\W|$))[^\s/]+)")
FIELD = re.compile(r"([?&][^\s=&]*(?:pass|pwd|secret|token)[^\s=&]*=)[^\s&]*", re.IGNORECASE)
LONGEST = 2000


class InputError(ValueError):
    """A user's mistake. Its text is the one line to show, whatever it quotes: what is wrong, where, what is allowed."""

    def __init__(self, text: str) -> None:
        line = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
        super().__init__(line if len(line) <= LONGEST else f"{line[: LONGEST - 300]} … {line[-300:]}")


@contextmanager
def within(where: str) -> Iterator[None]:
    """Let mistakes that are found inside say `where` they are."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def without_passwords(text: str) -> str:
    """Return a text in which the passwords of URLs are hidden."""

    def hidden(found: re.Match[str]) -> str:
        return f"{found[1]}:***{'@' if found[0].endswith('@') else ''}"

    return FIELD.sub(r"\1***", LOGIN.sub(hidden, text))


def first_line(error: BaseException) -> str:
    """Return what an error, or the database's behind it, says first, without passwords."""
    said = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
    return without_passwords(said.splitlines()[0])


def nearest(name: object, allowed: Iterable[object]) -> str:
    """Return ``", did you mean 'x'?"`` for the allowed name closest to `name`, or an empty string."""
    close = get_close_matches(str(name), [str(one) for one in allowed], n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""


def shown(value: Any) -> str:
    """Return a value as a message quotes it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def explain(error: ValidationError, where: str, *fields: str) -> InputError:
    """Turn pydantic's findings into one line that names `where` (a file or value), each field and its value.

    `fields` are those that hold what was validated.
    """
    findings: dict[str, str] = {}
    for found in error.errors():
        cause = found.get("ctx", {}).get("error")
        message = str(cause) if cause is not None else found["msg"][:1].lower() + found["msg"][1:]
        field = ".".join(str(part) for part in (*fields, *found["loc"]))
        if field and found["type"] not in ("missing", "union_tag_not_found"):
            message = f"{message} (got {shown(found['input'])})"
        # The same mistake in each of several stages is said once.
        findings.setdefault(message, f"{field}: {message}" if field else message)
    return InputError(f"{where}: " + "; ".join(findings.values()))
