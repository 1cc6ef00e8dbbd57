"""All honest programs."""

from tests.graders.honest.algorithms import ALGORITHMS
from tests.graders.honest.language import LANGUAGE
from tests.graders.honest.libraries import LIBRARIES
from tests.graders.honest.values import VALUES
from tests.graders.honest.whole import CHECKED, WHOLE

HONEST = [*ALGORITHMS, *LANGUAGE, *VALUES, *LIBRARIES, *WHOLE, *CHECKED]
"""Programs that are right, each with a change that makes it wrong."""
