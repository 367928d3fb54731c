from .advice.asking import advise as advise
from .api.auditing import Audit as Audit
from .api.auditing import audit_defaults as audit_defaults
from .api.break_evens import BreakEvens as BreakEvens
from .api.break_evens import break_even as break_even
from .api.choosing import choose as choose
from .api.display import Display as Display
from .api.forecast import plan as plan
from .api.labels import labels_needed as labels_needed
from .api.plans import Plan as Plan
from .api.publishing import publish as publish
from .api.ranking import rank_backbones as rank_backbones
from .api.releases import compare as compare
from .api.replaying import replay as replay
from .api.results import Results as Results
from .api.results import read_records as read_records
from .api.results import report as report
from .api.runs import RunResult as RunResult
from .api.runs import run as run
from .api.speed import InferenceCost as InferenceCost
from .api.speed import measure_inference as measure_inference
from .saved.model import SavedModel as SavedModel
from .saved.model import load_model as load_model
from .support.errors import DataWarning as DataWarning
from .support.errors import HarnessError as HarnessError

__version__: str
