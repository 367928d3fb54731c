from .attempt import Job as Job
from .scores import measure_upwards as measure_upwards
from .worker import Worker as Worker
from .worker import unrun as unrun
