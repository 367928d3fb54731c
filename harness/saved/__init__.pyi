from .layout import CARD as CARD
from .layout import card as card
from .layout import read_description as read_description
from .model import SavedModel as SavedModel
from .model import load_model as load_model
from .model import why_not_text as why_not_text
from .write import write_model as write_model
