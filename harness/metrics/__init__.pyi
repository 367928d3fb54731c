from .base import IN_UNITS as IN_UNITS
from .base import MetricSpec as MetricSpec
from .base import metrics as metrics
from .rows import pseudo_values as pseudo_values
from .tags import find_spans as find_spans
from .tags import span_counts as span_counts
from .tags import token_counts as token_counts
from .tags import types_of as types_of
