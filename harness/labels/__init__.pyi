from .answer import Crossing as Crossing
from .answer import Interval as Interval
from .answer import LabelsNeeded as LabelsNeeded
from .answer import MethodCurve as MethodCurve
from .measuring import labels_of as labels_of
from .measuring import measure_curves as measure_curves
from .outlook import answer_labels as answer_labels
