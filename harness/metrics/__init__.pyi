from .base import MetricSpec as MetricSpec
from .base import metrics as metrics
from .rows import pseudo_values as pseudo_values
