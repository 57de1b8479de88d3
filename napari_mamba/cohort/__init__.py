"""A cohort: one bundle on many cases, one row a case, and a page to leaf through.

`find_cases` says which cases there are, `run_batch` runs them. See docs/cohorts.md.
"""

from napari_mamba.cohort.cases.case import Case
from napari_mamba.cohort.cases.find import find_cases
from napari_mamba.cohort.row import Row, read_record
from napari_mamba.cohort.run import CaseEnded, CaseStarted, run_batch

__all__ = ["Case", "CaseEnded", "CaseStarted", "Row", "find_cases", "read_record", "run_batch"]
