"""The command lines that users start with, on a CPU: a tiny model stands in for the one of the hub. The chat is
`test_shell`'s; `test_argv` reads all of them.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.checkpoints import oracle_greedy, save_tiny
from support.server import Server, running
from support.words import EOS, save_words

pytestmark = pytest.mark.cpu


PROMPT = "once upon"
NUM_TOKENS = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four heads over two KV heads: four ranks have to share them. `words` is what transformers answers with it."""
    folder = tmp_path_factory.mktemp("model")
    oracle = save_tiny(folder, "qwen3", vocab_size=EOS, eos_token_id=None)  # every token is a byte
    words = bytes(oracle_greedy(oracle, list(PROMPT.encode()), NUM_TOKENS))
    (folder / "words").write_text(words.decode(errors="replace"))
    return save_words(folder)


def answer(server: Server) -> str:
    asked = server.complete(PROMPT, max_tokens=NUM_TOKENS, temperature=0)
    assert asked.status_code == 200, asked.text
    assert asked.json()["usage"]["completion_tokens"] == NUM_TOKENS
    text: str = asked.json()["choices"][0]["text"]
    return text


# The ports of the examples may be taken on this machine: `support.server` gives free ones.
@pytest.mark.parametrize(
    ("line", "facts"),
    [
        ("--host 0.0.0.0", {"tensorParallelSize": 1}),
        ("--tp 4", {"tensorParallelSize": 4}),
        (
            "--tp 4 --cache-type radix --num-pages 100000 --memory-ratio 0.85",
            {"tensorParallelSize": 4, "cacheType": "radix"},
        ),
    ],
)
def test_an_example_serves_the_models_words(model: Path, line: str, facts: dict[str, object]) -> None:
    with running(model, "--device=cpu", *line.split(), module="minisgl") as server:
        assert answer(server) == (model / "words").read_text()
        engine = server.client.get("/server_info").json()["engine"]
        assert {name: engine[name] for name in facts} == facts
        server.process.terminate()
        assert server.wait_end(30) == 0


@pytest.fixture(scope="module")
def dummy(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("dummy")
    for file in model.glob("*.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    assert not list(folder.glob("*.safetensors"))
    with running(folder, "--device=cpu", "--dummy-weight", module="minisgl") as server:
        yield server


def test_random_weights_need_only_configuration_and_words(dummy: Server) -> None:
    answer(dummy)


def test_a_word_that_the_model_does_not_have_harms_nobody(dummy: Server) -> None:
    # The tokenizer knows the tokens 256 and 257, the model has 256 rows.
    refused = dummy.complete("a<|end|>")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "prompt")
    assert "256 is outside the vocabulary of 256" in refused.json()["error"]["message"]
    biased = dummy.complete("a", logit_bias={"256": 1})
    assert (biased.status_code, biased.json()["error"]["param"]) == (400, "logit_bias")
    answer(dummy)


def test_kernels_of_a_gpu_are_refused_on_a_cpu_with_what_to_use(model: Path) -> None:
    with Server(model, "--device=cpu", "--attn", "fa3,fi", "--cuda-graph-max-bs", "8", module="minisgl") as server:
        assert server.wait_end(60) == 2
        said = [line for line in server.log.splitlines() if line.startswith("minisgl: ")]
    assert len(said) == 1
    for part in ("--attention-backend fa3,fi", "needs an NVIDIA GPU", "package flash", "use --attention-backend torch"):
        assert part in said[0]
