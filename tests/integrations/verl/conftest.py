"""verl is installed in an environment of its own, `make test-verl`; elsewhere these tests are skipped.

The modules without tests are imported by the processes of a run, never here: one of them changes verl's platform. Where
verl is missing, this folder passes for a package `verl`; the tests look for one of its modules.
"""

collect_ignore_glob = ["[!t]*.py"]
