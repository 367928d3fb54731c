from .worker import Worker as Worker
from .worker import unrun as unrun
