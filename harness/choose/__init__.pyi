from .choosing import Chosen as Chosen
from .choosing import check_save_folder as check_save_folder
from .choosing import check_time as check_time
from .choosing import choose_within as choose_within
from .evaluation import EVALUATION as EVALUATION
from .tried import Tried as Tried
from .tried import validated as validated
