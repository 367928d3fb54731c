from .plan import PlannedCell as PlannedCell
from .plan import label_of as label_of
from .plan import plan_cells as plan_cells
from .suites import BUDGET_SETS as BUDGET_SETS
from .suites import Suite as Suite
from .suites import load_suite as load_suite
from .suites import suite_names as suite_names
from .suites import suite_origin as suite_origin
