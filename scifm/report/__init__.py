"""Figures, tables and a page about a run: the course of the training, samples beside data, the score.

reading         files of samples
labels          what they say of fields: names, units, mask, places
drawing         which figures a run gets
fields          those of fields on grids, and of ensembles of them
field_tables    the same in numbers; sets of points have theirs in `scifm.tables`
page            report.md
"""

from scifm.report.drawing import figures, left_out, tables
from scifm.report.labels import Labels, beside, is_field, members_of
from scifm.report.page import page
from scifm.report.reading import read_batch, read_labels, read_samples

__all__ = [
    "Labels",
    "beside",
    "figures",
    "is_field",
    "left_out",
    "members_of",
    "page",
    "read_batch",
    "read_labels",
    "read_samples",
    "tables",
]
