"""What people call the files and folders of what to train on and what to test on."""

from __future__ import annotations

import re

# Train, training_set, 1_train; seg_train beside seg_test.
SPLIT_NAME = re.compile(
    r"(?:\d+[._ -]*|(?P<prefix>.+)[._ -])?(?P<name>train(?:ing)?|test(?:ing)?|val(?:id(?:ation)?)?|dev|eval)"
    r"(?:[._ -]?(?:set|data|images))?",
    re.IGNORECASE,
)
TEST_NAMES = ("test", "testing", "val", "valid", "validation", "dev", "eval")
"""Of several to test on, the first of these that is there is taken."""
