from .ranked import METRIC as METRIC
from .ranked import RankedBackbone as RankedBackbone
from .ranked import Ranking as Ranking
from .ranking import DEFAULT_ROWS as DEFAULT_ROWS
from .ranking import MOST_ROWS as MOST_ROWS
from .ranking import check_kind as check_kind
from .ranking import rank as rank
