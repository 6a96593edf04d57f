"""Settings come from flags and environment, and a wrong one is told by name."""

import pytest

from minisgl_operator.settings import Settings, read


def test_a_flag_wins_over_the_environment_and_that_over_the_default() -> None:
    environ = {"MINISGL_RESYNC_SECONDS": "60", "MINISGL_METRICS_PORT": "9000", "MINISGL_RUNTIME_IMAGE": ""}
    settings = read(["--resync-seconds=30"], environ)
    assert (settings.resync_seconds, settings.metrics_port) == (30, 9000)
    assert settings.runtime_image == Settings().runtime_image


def test_namespaces_are_a_list_and_none_means_all() -> None:
    assert read(["--watch-namespaces=a, b,"], {}).namespaces == ("a", "b")
    assert read([], {}).namespaces == ()


@pytest.mark.parametrize("argv", [["--resync-seconds=0"], ["--log-format=xml"], ["--workers=many"], ["--unknown=1"]])
def test_a_wrong_value_ends_the_process_with_a_sentence_that_names_it(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        read(argv, {})
    assert ended.value.code == 2
    assert argv[0].split("=")[0] in capsys.readouterr().err
