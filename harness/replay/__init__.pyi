from .replaying import DEFAULT_GRIDS as DEFAULT_GRIDS
from .replaying import Allowance as Allowance
from .replaying import Replayed as Replayed
from .replaying import replay_searches as replay_searches
