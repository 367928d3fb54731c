from .sending import Sending as Sending
from .sending import Tracked as Tracked
from .tracker import read_trackers as read_trackers
