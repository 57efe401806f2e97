"""File formats: tables out of files and into them, and parts that survive their process. No onnxruntime."""

from __future__ import annotations

from mmensemble.files.arrow import ArrowFormat
from mmensemble.files.csv import CsvFormat, TsvFormat
from mmensemble.files.formats import register_format
from mmensemble.files.json_lines import JsonLinesFormat
from mmensemble.files.parquet import ParquetFormat

__all__: list[str] = []

for _file_format in (ParquetFormat(), CsvFormat(), TsvFormat(), JsonLinesFormat(), ArrowFormat()):
    register_format(_file_format)
