"""The ledger against itself on paper: thousands of orders of steps, and after each step the two must agree.

- `paper.py` is the model: what ought to be stored, in dictionaries; its one law is `TRANSITIONS` of `delivery.py`.
  `desk.py` is what operators change of it, `listeners.py` the handlers of both sides.
- `real.py` is flowhooks itself: `App`s on a real database, two where that is PostgreSQL, whose runners' threads are the
  test.
- `machine.py` is the step that engines make, and what must hold after each step; `running.py` has those of runners,
  `acting.py` those of operators, processes and time.
- `test_model.py` makes some dozens of orders always, and thousands with `make test-long`.

How to read a failure: the last lines are the shortest order of steps that was found to fail, a Python program of the
calls of the steps, each followed by `state.agree()`. Above them is the assertion. Where `stored()` and `shape()`
differ, the left side is what the database holds and the right side what ought to be there. Both have for each event
its state, repeats, route and number of differing bodies. By handler they have its delivery: state, attempts, when it
is due, when it changed, where its retry schedule began, and each attempt's process, outcome and end. A `pick` counts
round all that there are of what a step is about; `which` is the process, and `free` whether one of its threads is.

How to run it again: one seed decides a whole run. The steps, the threads that are free, the crashes, the repeats of
engines and how far the clock is moved are all drawn from it; ids are counted, and no thread of the processes begins
anything. `make test` always has the seed 1. The long test draws one. A failure ends with the command that runs the same
examples again, in the same order: `FLOWHOOKS_MODEL_SEED=... pytest ...`. The number of examples belongs to it, because
the first ones are smaller the more there are. To run only the shortest failing example: put the printed line
`@reproduce_failure(...)` above the class `Steps` in `test_model.py`. `FLOWHOOKS_MODEL_EXAMPLES=50000` looks at more.
"""

import pytest

pytest.register_assert_rewrite("model.machine", "model.running", "model.acting", "model.real")
