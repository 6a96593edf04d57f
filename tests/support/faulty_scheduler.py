"""The real scheduler process, with the faults that `support.faults` names put into its engine."""

import time

from minisgl.device import prepare_cpu
from minisgl.process import Supervisor, run_child
from minisgl.scheduler import process
from support import faults


def main(supervisor: Supervisor) -> None:
    faults.hold_phases()
    prepare_cpu(supervisor.config.launch_args.tensor_parallel_size)

    from minisgl.engine.batch import Batch
    from minisgl.engine.engine import Engine, Result

    asked, seconds = faults.asked(), faults.step_seconds()
    launch = Engine.launch

    def faulty_launch(self: Engine, batch: Batch) -> Result:
        if asked.get("raise", "") in map(str, batch.tokens.tolist()):
            raise RuntimeError("the engine was told to fail")
        if self.group.rank == 1 and asked.get("hang", "") in map(str, batch.tokens.tolist()):
            hang_for_ever()
        time.sleep(seconds)
        return launch(self, batch)

    Engine.launch = faulty_launch  # type: ignore[method-assign]
    process.main(supervisor)


def hang_for_ever() -> None:
    while True:
        time.sleep(60)


if __name__ == "__main__":
    run_child(main)
