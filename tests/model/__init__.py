"""The ledger is compared with a model: after each of thousands of random steps the two must agree.

- `paper.py` is the model: the expected content in dictionaries; its only rule is `TRANSITIONS` of `delivery.py`.
  `desk.py` and `bulk.py` have the operations of operators on it, `listeners.py` the handlers of both sides.
- `real.py` is flowhooks itself: `App`s on a real database, two on PostgreSQL; the test replaces the runners' threads.
- `machine.py` has the steps of engines and the checks after each step; `running.py` has the steps of runners,
  `operating.py` those of bulk operations, `acting.py` those of operators, processes and time.
- `rounds.py` has the steps of reconciliation with an engine in memory, and `test_rounds.py` runs them.
- `test_model.py` runs some dozens of sequences always, and thousands with `make test-long`.

How to read a failure: the last lines are the shortest failing sequence of steps, a Python program of the calls of the
steps, each followed by `state.agree()`. Above them is the assertion. If `stored()` and `shape()` differ, the left side
is the content of the database and the right side the expected content. Both have for each event its state, repeats,
route and number of differing bodies. By handler they have its delivery: state, attempts, when it is due, when it
changed, where its retry schedule began, and each attempt's process, outcome and end. A `pick` selects an object of the
step by a number, modulo their count; `which` is the process, and `free` whether it has a free thread.

How to repeat a run: one seed decides a whole run. The steps, the free threads, the crashes, the repeats of engines
and the movements of the clock are all drawn from it; ids are counted, and the threads of the processes start nothing.
`make test` always has the seed 1. The long test draws a seed. A failure ends with the command that runs the same
examples again, in the same order: `FLOWHOOKS_MODEL_SEED=... pytest ...`. The command also names the number of examples,
because the first examples are smaller if there are more of them. To run only the shortest failing example, put the
printed line `@reproduce_failure(...)` above the class `Steps` in `test_model.py`. `FLOWHOOKS_MODEL_EXAMPLES=50000` runs
more examples.
"""

import pytest

pytest.register_assert_rewrite(
    "model.rounds", "model.machine", "model.running", "model.operating", "model.acting", "model.real"
)
