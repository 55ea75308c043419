"""Whatever happens in whatever order, all runs together never use more slots than there are."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from imgdl_pipeline.core.storage.host_leases import SAFETY_S, HostLeases, HostLimits, Part
from imgdl_pipeline_tests.support.lockstep import Lockstep, SteppedStore

HOST = "h.org:443"
LONGEST_REQUEST_S = SAFETY_S - 1
MOST_RUNS = 4

runs = st.integers(0, MOST_RUNS - 1)


class Run:
    """A run on a machine of its own, with a clock of its own, that has as many requests as it may."""

    def __init__(self, files: dict[str, bytes], now: list[float], ahead: float, total: int) -> None:
        self.total, self.now = total, now
        self.begun: list[float] = []
        self.is_asleep = False
        self.rate = 0.0
        self.process = Lockstep()
        self.store = SteppedStore(files, self.process)
        self.leases = HostLeases(
            self.store,
            lambda _: HostLimits(total, float(total)),
            [HOST],
            busy=lambda _: len(self.begun),
            on_renewal=self._renewed,
            clock=lambda: now[0] + ahead,
        )

    def _renewed(self, host: str, part: Part) -> bool:
        self.rate = part.limits.per_second * part.slots / part.limits.slots
        return True

    @property
    def slots(self) -> int:
        return self.leases.slots(HOST) or 0

    def step(self) -> None:
        self.process.step(self.leases.renew)


class Runs(RuleBasedStateMachine):
    """Runs that begin, renew, pause, fail and die while time passes; each that is awake asks all it may."""

    @initialize(totals=st.sampled_from([(8,), (4,), (2,), (1,), (8, 2), (4, 1)]))
    def begin(self, totals):
        self.totals = totals
        self.files, self.now, self.runs, self.dead = {}, [1000.0], [], []

    @precondition(lambda self: len(self.runs) < MOST_RUNS)
    @rule(which=st.integers(0, 1), ahead=st.sampled_from([0.0, 300.0, -300.0]))
    def start(self, which, ahead):
        run = Run(self.files, self.now, ahead, self.totals[which % len(self.totals)])
        run.process.finish(run.leases.renew)
        self.runs.append(run)
        self.ask()

    @precondition(lambda self: self.runs)
    @rule(which=runs, steps=st.integers(1, 12))
    def go_on(self, which, steps):
        run = self.runs[which % len(self.runs)]
        for _ in range(steps):
            run.step()
            self.ask()

    @precondition(lambda self: self.runs)
    @rule(which=runs)
    def renew(self, which):
        run = self.runs[which % len(self.runs)]
        run.process.finish(run.leases.renew)
        self.ask()

    @rule(seconds=st.sampled_from([1.0, 5.0, 8.0]))
    def all_but_sleepers_renew_in_time(self, seconds):
        self.time_passes(seconds)
        for run in self.runs:
            if not run.is_asleep:
                run.process.finish(run.leases.renew)
                self.ask()

    @precondition(lambda self: self.runs)
    @rule(which=runs)
    def fall_asleep_or_wake_up(self, which):
        run = self.runs[which % len(self.runs)]
        run.is_asleep = not run.is_asleep
        self.ask()

    @precondition(lambda self: self.runs)
    @rule(which=runs, count=st.integers(1, 8))
    def answer(self, which, count):
        del self.runs[which % len(self.runs)].begun[:count]
        self.ask()

    @rule(seconds=st.sampled_from([1.0, 5.0, 11.0, 21.0, 31.0]))
    def time_passes(self, seconds):
        self.now[0] += seconds
        for run in [*self.runs, *self.dead]:
            run.begun = [each for each in run.begun if each > self.now[0] - LONGEST_REQUEST_S]
        self.ask()

    @precondition(lambda self: self.runs)
    @rule(which=runs, fails=st.booleans(), loses=st.booleans())
    def the_store_fails_for_one(self, which, fails, loses):
        store = self.runs[which % len(self.runs)].store
        store.is_failing, store.is_losing_answers = fails, loses

    @precondition(lambda self: self.runs)
    @rule(which=runs)
    def die(self, which):
        run = self.runs.pop(which % len(self.runs))
        run.process.kill()
        self.dead.append(run)

    def ask(self):
        """Send as many requests as all runs that are awake may send."""
        for run in self.runs:
            while not run.is_asleep and len(run.begun) < run.slots:
                run.begun.append(self.now[0])
                in_flight = sum(len(each.begun) for each in [*self.runs, *self.dead])
                assert in_flight <= run.total, "more requests than slots"

    def teardown(self):
        """At last, when nothing fails any more, all slots are used, and every run gets one in its turn."""
        if not getattr(self, "runs", None):
            return
        for run in self.runs:
            run.is_asleep = run.store.is_failing = run.store.is_losing_answers = False
        total, had = min(run.total for run in self.runs), set()
        for _ in range(80):
            self.all_but_sleepers_renew_in_time(5.0)
            had |= {id(run) for run in self.runs if run.slots}
            is_all_used = sum(run.slots for run in self.runs) == total or len(self.runs) > total
            if is_all_used and len(had) == len(self.runs):
                break
        assert is_all_used
        assert len(had) == len(self.runs)
        assert sum(run.rate for run in self.runs if run.slots) <= total + 1e-9
        for run in self.runs:
            run.process.kill()


TestRuns = Runs.TestCase
TestRuns.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
