import subprocess
import sys


def test_the_command_line_can_handle_signals_before_anything_heavy_is_imported() -> None:
    # As PID 1 of a container it would lose a SIGTERM that comes earlier, and live on for its whole grace period.
    look = "import sys, minisgl.__main__; print(sorted({'pydantic', 'argparse', 'torch'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
