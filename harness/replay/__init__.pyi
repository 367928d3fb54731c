from .grids import Configuration as Configuration
from .grids import Grid as Grid
from .grids import find_grids as find_grids
from .runs import RecordedRuns as RecordedRuns
from .runs import Split as Split
