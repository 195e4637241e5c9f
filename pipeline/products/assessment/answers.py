"""Answers of interpreters in a CSV file, as the page of `landcover sample` saves them.

Columns: `sample`, which names the design that was drawn; `point`, its number; `reference`, the FLAIR value that is true
there, empty or 0 where it is not answered.
"""

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path

from pipeline import legend
from pipeline.errors import ProductError
from pipeline.products.assessment.sample_design import SampleDesign
from pipeline.untrusted.documents import DocumentError, read_bytes

_COLUMNS = ("sample", "point", "reference")
_MOST_BYTES = 16 << 20
_NUMBER = re.compile("[0-9]{1,9}")


def read_answers(path: Path, design: SampleDesign) -> Mapping[int, int]:
    """Number of a point → FLAIR value, for the points that are answered.

    Args:
        path: the CSV file; spreadsheets may have written it with semicolons.
        design: of the sample that the answers must belong to.

    Raises:
        ProductError: it cannot be read, has answers of another sample, or a row is not as expected.
    """
    try:
        text = read_bytes(path, most=_MOST_BYTES).decode("utf-8-sig")
        delimiter = ";" if ";" in text.partition("\n")[0] else ","
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        lacking = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
        if lacking:
            raise ProductError(
                f"{path}: columns {', '.join(lacking)} are missing; expected {', '.join(_COLUMNS)}, as the page of "
                "`landcover sample` saves them"
            )
        answers: dict[int, int] = {}
        for number, row in enumerate(rows, start=2):
            _read_row(row, design, answers, where=f"{path}, line {number}")
    except (OSError, DocumentError, UnicodeDecodeError, csv.Error) as error:
        raise ProductError(f"{path}: cannot be read as answers to a sample: {error}") from error
    return answers


def _read_row(row: Mapping[str, str | None], design: SampleDesign, answers: dict[int, int], *, where: str) -> None:
    sample, point, reference = ((row[name] or "").strip() for name in _COLUMNS)
    if sample != design.identity:
        raise ProductError(
            f"{where}: an answer of sample {sample or 'without a name'}; expected {design.identity}. Give the answers "
            "that were saved by the page of this sample"
        )
    points = sum(design.points.values())
    if not (_NUMBER.fullmatch(point) and 1 <= int(point) <= points):
        raise ProductError(f"{where}: expected a point 1..{points}, found {point!r}")
    if reference in ("", "0"):
        return
    if not (_NUMBER.fullmatch(reference) and int(reference) in legend.BY_VALUE):
        raise ProductError(f"{where}: expected a FLAIR value 1..19 in `reference`, found {reference!r}")
    if answers.setdefault(int(point), int(reference)) != int(reference):
        raise ProductError(f"{where}: point {point} has two answers, {answers[int(point)]} and {reference}; keep one")
