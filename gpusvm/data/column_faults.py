"""Columns of features that hold something else than numbers: what, how much, what to do."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpusvm.errors import DataError

MOST_WORDS = 50
"""So many different words of a column are kept, to show some of them."""

_TRUTHS = ({"true": 1.0, "false": 0.0}, {"yes": 1.0, "no": 0.0})
DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+([eE][-+]?\d+)?")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}([,.' \u2009\u00a0\u202f]\d{3})+([.,]\d+)?")
_COMMA_OF_EITHER_KIND = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")
_PERCENT = re.compile(r"[-+]?[\d.,]+\s*%")
_CURRENCY = re.compile(r"[-+]?[$€£¥]\s*[-+]?[\d.,]+|[-+]?[\d.,]+\s*[$€£¥]")
_DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}([T ].*)?|\d{1,2}:\d{2}(:\d{2}.*)?"
)
_NO_NUMBER = "is not a number"
_LONGEST_OPTION = 40
_MOST_NAMED = 5
_MOST_DROPPED = 12


@dataclass(frozen=True)
class ColumnFault:
    """A column of features that cannot be used as it is.

    Attributes
    ----------
    column : int
        Its number, from 0.
    name : str
        "" where it has none.
    place : str
        Where the first fault is: "line 17" of a text, "row 3" of other files.
    words : tuple of str
        The first words that are no numbers, `MOST_WORDS` at most; none where all values that are
        there can be read.
    n_missing, n_infinite, n_rows, n_words : int
        Rows without a value, rows with an infinite one, all rows, and rows with a word.
    kind : str
        What the file says that it holds, such as a list of numbers, where the values were not read
        at all.
    """

    column: int
    name: str
    place: str
    words: tuple[str, ...] = ()
    n_missing: int = 0
    n_infinite: int = 0
    n_rows: int = 0
    kind: str = ""
    n_words: int = 0

    @property
    def option(self) -> str:
        """What to write behind --drop, as a shell takes it.

        It is the name, or the number where the name is none to type.
        """
        return option_of(self.name, self.column)

    @property
    def key(self) -> str:
        """What `TableOptions.drop` calls it."""
        return self.name or str(self.column + 1)

    @property
    def title(self) -> str:
        """What to call it in a list."""
        return repr(self.name[:_LONGEST_OPTION]) if self.name else f"column {self.column + 1}"

    @property
    def is_words(self) -> bool:
        """Whether it needs another encoding, rather than values filled in."""
        return bool(self.kind or self.words)

    @property
    def is_marked_numbers(self) -> bool:
        """Whether its first word is a number after all, but for marks, or a date."""
        return bool(self.words) and _what_is(self.words[0]) != _NO_NUMBER

    @property
    def problem(self) -> str:
        """What is wrong, of one value."""
        if self.kind:
            return f"holds {self.kind:.60}, which is no number"
        if self.is_words:
            return f"{self.words[0][:20]!r} {_what_is(self.words[0])}"
        if self.n_missing:
            return f"the value is missing, as in {self.n_missing:,} of {self.n_rows:,} rows"
        return f"the value is infinite, as in {self.n_infinite:,} of {self.n_rows:,} rows"

    @property
    def cure(self) -> str:
        """What to do other than to leave the column out."""
        if self.is_words:
            return "" if self.kind else _cure_of(self.words[0])
        return "fill them in" if self.n_missing else "replace them"


class UnusableColumnsError(DataError):
    """Columns of features hold something else than numbers.

    `faults` has all of them, in the order of the file.
    """

    def __init__(self, path: Path, faults: Sequence[ColumnFault], *, has_label: bool) -> None:
        self.faults = tuple(faults)
        describe = (
            _describe_one(self.faults[0], has_label) if len(faults) == 1 else _describe_all(self.faults, has_label)
        )
        super().__init__(f"{path}: {describe}")


def option_of(name: str, column: int) -> str:
    """How --drop and --label name a column, as a shell takes it."""
    is_plain = bool(name) and len(name) <= _LONGEST_OPTION and name.isprintable()
    return shlex.quote(name) if is_plain else str(column + 1)


def drop_options(faults: Sequence[ColumnFault]) -> str:
    """The options that leave out these columns."""
    return " ".join(f"--drop {fault.option}" for fault in faults)


def truth_of(words: Sequence[str]) -> dict[str, float] | None:
    """Each word as a number, where all are true or false, or all yes or no; else None."""
    for truths in _TRUTHS:
        if words and all(word.strip().lower() in truths for word in words):
            return {word: truths[word.strip().lower()] for word in words}
    return None


def truth_value(word: str) -> float | None:
    """1 for true and yes, 0 for false and no, None for any other word."""
    word = word.lower()
    return next((truths[word] for truths in _TRUTHS if word in truths), None)


def _what_is(word: str) -> str:
    """What a word is that is no number, after the word itself."""
    if _COMMA_OF_EITHER_KIND.fullmatch(word):
        return "has a comma between thousands, or as its decimal mark"
    if DECIMAL_COMMA.fullmatch(word):
        return "has a decimal comma, and others a point"
    if _THOUSANDS.fullmatch(word):
        return "has marks between thousands"
    if _PERCENT.fullmatch(word):
        return "has a percent sign"
    if _CURRENCY.fullmatch(word):
        return "has a currency sign"
    if _DATE.fullmatch(word):
        return "is a date or a time, and not a number"
    return _NO_NUMBER


def _cure_of(word: str) -> str:
    if DECIMAL_COMMA.fullmatch(word) and not _COMMA_OF_EITHER_KIND.fullmatch(word):
        return "write all of them in one way"
    if _THOUSANDS.fullmatch(word) or _PERCENT.fullmatch(word) or _CURRENCY.fullmatch(word):
        return "export plain numbers"
    if _DATE.fullmatch(word):
        return "make numbers of it, such as days or the month"
    return "encode it as numbers"


def _describe_one(fault: ColumnFault, has_label: bool) -> str:
    where = f"{fault.place + ', ' if fault.place else ''}column {fault.column + 1}"
    where += f" ({fault.name[:_LONGEST_OPTION]})" if fault.name else ""
    if not fault.is_words:
        return f"{where}: {fault.problem}; {fault.cure}, or leave out the column (--drop {fault.option}) or those rows"
    cures = f"leave the column out (--drop {fault.option})" + (f", or {fault.cure}" if fault.cure else "")
    label = "" if has_label or fault.kind else f", or say that it holds the labels (--label {fault.option})"
    return f"{where}: {fault.problem}; {cures}{label}"


def _is_odd_row(faults: tuple[ColumnFault, ...]) -> bool:
    """Whether one row alone is at fault, with a word at least."""
    is_one = len({fault.place for fault in faults}) == 1 and any(fault.words for fault in faults)
    return is_one and all(fault.n_words + fault.n_missing + fault.n_infinite == 1 < fault.n_rows for fault in faults)


def _describe_all(faults: tuple[ColumnFault, ...], has_label: bool) -> str:
    if _is_odd_row(faults):
        shown = [f"{fault.title} ({fault.words[0][:20] if fault.words else ''!r})" for fault in faults]
        return (
            f"{faults[0].place} alone holds no numbers in {_some(shown)}: it may be a second header, units or a total;"
            f" remove it, or leave the columns out ({_drops(faults)})"
        )
    words = [fault for fault in faults if fault.is_words]
    gaps = [fault for fault in faults if not fault.is_words and fault.n_missing]
    infinite = [fault for fault in faults if not fault.is_words and not fault.n_missing]
    told = []
    if words:
        shown = [f"{fault.title} ({fault.kind[:40] or repr(fault.words[0][:20])})" for fault in words]
        told.append(f"{_columns(words)} no numbers: {_some(shown)}")
    if gaps:
        shown = [f"{fault.title} ({fault.n_missing:,} of {fault.n_rows:,} rows)" for fault in gaps]
        told.append(f"values are missing in {_some(shown)}")
    if infinite:
        told.append(f"values are infinite in {_some([fault.title for fault in infinite])}")
    cures = [
        *(["encode them as numbers"] if words else []),
        *(["fill in what is missing"] if gaps else []),
        *(["replace what is infinite"] if infinite else []),
    ]
    if has_label:
        return f"{'; '.join(told)}; {', '.join(cures)}, or leave the columns out ({_drops(faults)})"
    cures[0] = cures[0].replace("them", "the others")
    first = "say which column holds the labels (--label NAME)"
    return f"{'; '.join(told)}; {first}, {', '.join(cures)}, or leave them out ({_drops(faults)})"


def _columns(faults: Sequence[ColumnFault]) -> str:
    return "1 column holds" if len(faults) == 1 else f"{len(faults):,} columns hold"


def _some(shown: Sequence[str]) -> str:
    more = f" and {len(shown) - _MOST_NAMED:,} more" if len(shown) > _MOST_NAMED else ""
    return ", ".join(shown[:_MOST_NAMED]) + more


def _drops(faults: Sequence[ColumnFault]) -> str:
    if len(faults) <= _MOST_DROPPED:
        return drop_options(faults)
    return (
        f"{drop_options(faults[:_MOST_DROPPED])} and {len(faults) - _MOST_DROPPED:,} more; gpusvm data show lists them"
    )
