"""What a scraper of /metrics sees of a running server, under our names and under vLLM's."""

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from minisgl.metrics import FINISH_REASONS
from support.server import Server, Stream, running
from support.words import save_words

pytestmark = pytest.mark.cpu

FAILS = 666  # the fake scheduler's seed for it
Key = tuple[str, tuple[tuple[str, str], ...]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(save_words(tmp_path_factory.mktemp("model")), fake="step=0.005") as server:
        yield server


def scrape(server: Server) -> dict[Key, float]:
    """Every sample, by name and labels."""
    families = list(text_string_to_metric_families(server.client.get("/metrics").text))
    samples = [sample for family in families for sample in family.samples]
    found = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}
    assert len(found) == len(samples), "a series is shown twice"
    return found


def total(found: dict[Key, float], name: str, **labels: str) -> float:
    return sum(value for (of, at), value in found.items() if of == name and labels.items() <= dict(at).items())


def use(server: Server) -> None:
    """One request of every ending, and some that are refused."""
    assert server.complete("secret", max_tokens=5).status_code == 200
    assert server.complete("secret", max_tokens=50, stop="cr").status_code == 200
    assert server.complete("secret", max_tokens=5, seed=FAILS).status_code == 500
    Stream(server, "secret").leave()
    assert server.complete("secret", model="secret").status_code == 404
    assert server.client.get("/v1/models/secret").status_code == 404
    assert server.client.get("/secret", headers={"X-Request-Id": "secret"}).status_code == 404
    server.wait_for(lambda: server.metric("minisgl_requests_running") == 0, 10)


def test_counters_only_grow_and_histograms_count_every_request_that_ended(server: Server) -> None:
    before = scrape(server)
    use(server)
    after = scrape(server)
    assert before.keys() <= after.keys()
    grown = ("_total", "_count", "_bucket", "_sum")
    assert [key for key in before if key[0].endswith(grown) and after[key] < before[key]] == []
    for reason in FINISH_REASONS.values():
        ended = [total(scraped, "minisgl_requests_total", finish_reason=reason) for scraped in (before, after)]
        assert ended[1] - ended[0] == 1, reason
    ended_in_all = total(after, "minisgl_requests_total")
    for name in ("duration_seconds", "prompt_tokens", "generation_tokens", "max_tokens"):
        assert total(after, f"minisgl_request_{name}_count") == ended_in_all
    assert total(after, "minisgl_request_generation_tokens_sum") == total(after, "minisgl_generation_tokens_total")
    assert total(after, "minisgl_time_to_first_token_seconds_count") == ended_in_all - 1  # one failed before it
    gaps = total(after, "minisgl_inter_token_latency_seconds_count")
    assert 0 < gaps <= total(after, "minisgl_generation_tokens_total")


def test_vllms_names_say_the_same_without_being_asked(server: Server) -> None:
    use(server)
    found = scrape(server)
    same = {
        "vllm:request_success_total": "minisgl_requests_total",
        "vllm:generation_tokens_total": "minisgl_generation_tokens_total",
        "vllm:e2e_request_latency_seconds_count": "minisgl_request_duration_seconds_count",
        "vllm:e2e_request_latency_seconds_sum": "minisgl_request_duration_seconds_sum",
    }
    for theirs, ours in same.items():
        assert total(found, theirs) == total(found, ours) > 0
    info = next(dict(labels) for name, labels in found if name == "vllm:cache_config_info")
    assert info == {"model_name": "tiny", "engine": "0", "block_size": "16", "num_gpu_blocks": "256"}


def test_no_series_bears_a_clients_words(server: Server) -> None:
    use(server)
    labels = [value for _, at in scrape(server) for _, value in at]
    assert not [value for value in labels if "secret" in value]


def test_vllms_names_can_be_left_out(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running(save_words(tmp_path_factory.mktemp("model")), "--metrics-compat=none") as server:
        assert "vllm" not in server.client.get("/metrics").text
