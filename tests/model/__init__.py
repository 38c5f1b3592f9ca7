"""The ledger against itself on paper: thousands of orders of steps, and after each the two must agree.

- `paper.py` is the model: what ought to be stored, in dictionaries; its one law is `TRANSITIONS` of `delivery.py`.
- `real.py` is flowhooks itself: `App`s on a real database, whose runner's one thread is the test.
- `machine.py` has the steps, each done on both sides, and what must hold after each of them.
- `test_model.py` runs them: a few dozen examples always, thousands with `make test-long`.
"""

import pytest

pytest.register_assert_rewrite("model.machine", "model.real")
