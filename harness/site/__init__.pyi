from .publish import Published as Published
from .publish import Source as Source
from .publish import publish_reports as publish_reports
