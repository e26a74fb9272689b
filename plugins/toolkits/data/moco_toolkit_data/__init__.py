"""What dataset plugins share: readers, field checks, seeded splits, duplicate reports, one declarative base."""

from moco_toolkit_data.base import SourceDataset
from moco_toolkit_data.duplicates import DuplicateReport, content_key, normalised
from moco_toolkit_data.formats import BOXED, CODE, LETTER, NUMBER, SHORT
from moco_toolkit_data.hub import Hub
from moco_toolkit_data.options import SourceOptions
from moco_toolkit_data.readers import data_files, read_rows
from moco_toolkit_data.rows import Drop, Row
from moco_toolkit_data.splits import permutation, rank, shuffled

__all__ = [
    "BOXED",
    "CODE",
    "LETTER",
    "NUMBER",
    "SHORT",
    "Drop",
    "DuplicateReport",
    "Hub",
    "Row",
    "SourceDataset",
    "SourceOptions",
    "content_key",
    "data_files",
    "normalised",
    "permutation",
    "rank",
    "read_rows",
    "shuffled",
]
