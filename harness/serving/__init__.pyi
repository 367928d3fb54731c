from .questions import Answered as Answered
from .questions import Conversation as Conversation
from .questions import Message as Message
from .questions import Question as Question
