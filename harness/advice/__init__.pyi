from .answer import Advice as Advice
from .answer import AdvisedMethod as AdvisedMethod
from .asking import advise as advise
from .asking import answer_from as answer_from
from .asking import own_records as own_records
from .own_texts import question_about as question_about
from .validate import RULES as RULES
from .validate import validate_advice as validate_advice
