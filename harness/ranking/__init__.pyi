from .ranked import RankedBackbone as RankedBackbone
from .ranked import Ranking as Ranking
from .ranking import check_kind as check_kind
from .ranking import rank as rank
