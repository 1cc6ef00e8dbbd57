"""All forgeries."""

from tests.graders.forging.finding import FINDING
from tests.graders.forging.leaving import LEAVING
from tests.graders.forging.objects import OBJECTS
from tests.graders.forging.patching import PATCHING
from tests.graders.forging.streams import STREAMS

FORGERIES = [*LEAVING, *OBJECTS, *PATCHING, *FINDING, *STREAMS]
"""Programs that do not solve the task but try to get a passing grade."""
