from .advice.asking import advise as advise
from .saved.model import load_model as load_model

__version__: str
