"""What these modules import is installed in an environment of its own: `make test-verl`."""

import importlib.util

# Modules without tests import verl themselves, and pytest would look into them for doctests.
if importlib.util.find_spec("verl") is None:
    collect_ignore_glob = ["[!t]*.py"]
