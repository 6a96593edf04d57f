"""The tokenizer and detokenizer processes, and the one process that does both when `num_tokenizer` is 0.

In that one, encoding runs in the main thread (the template's timer needs it) and decoding in a second: the Rust
tokenizer releases the interpreter, so a long prompt does not stop the streams.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from minisgl.errors import EXIT_CHILD_DIED
from minisgl.messages import TO_DETOKENIZER, TO_TOKENIZER
from minisgl.process import Supervisor, leave, run_child
from minisgl.sockets import Inbox, Outbox
from minisgl.source import WORDS, find_model
from minisgl.tokenizer.decode import Decoder
from minisgl.tokenizer.detokenizer import Detokenizer
from minisgl.tokenizer.encode import Encoder
from minisgl.tokenizer.files import load_tokenizer

TURN_SECONDS = 0.25  # an idle loop goes round, and beats, this often; the shortest watchdog is a second

logger = logging.getLogger(__name__)


def main(supervisor: Supervisor) -> None:
    config = supervisor.config
    supervisor.phase("tokenizer")
    folder = find_model(config.launch_args.model_path, WORDS)
    tokenizer = load_tokenizer(folder)
    ipc = Path(config.ipc)
    if config.role == "tokenizer":
        encode_loop(supervisor, Encoder(folder, tokenizer), config.index)
    decoding = DecodeLoop(supervisor, Decoder(tokenizer), ipc)
    if config.launch_args.num_tokenizer > 0:
        supervisor.ready()
        while True:
            decoding.turn()
            supervisor.beat()
    threading.Thread(target=decoding.run, name="decode", daemon=True).start()
    encode_loop(supervisor, Encoder(folder, tokenizer), 0, decoding)


class DecodeLoop:
    """Steps in, texts out."""

    def __init__(self, supervisor: Supervisor, decoder: Decoder, ipc: Path) -> None:
        self._detokenizer = Detokenizer(decoder, supervisor.count_dropped)
        self._inbox: Inbox[TO_DETOKENIZER] = Inbox(ipc, "detokenizer", TO_DETOKENIZER, supervisor.count_dropped)
        self._outbox = Outbox(ipc, "frontend")
        self.turned_at = time.monotonic()

    def turn(self) -> None:
        """Handle one step, or none within TURN_SECONDS."""
        step = self._inbox.get(TURN_SECONDS)
        if step is not None and (texts := self._detokenizer.read(step)) is not None:
            self._outbox.put(texts)
        self.turned_at = time.monotonic()

    def run(self) -> None:
        """The loop as a thread; its failure is the process's."""
        try:
            while True:
                self.turn()
        except Exception:
            logger.exception("decoding failed")
            leave(EXIT_CHILD_DIED)


def encode_loop(supervisor: Supervisor, encoder: Encoder, index: int, beside: DecodeLoop | None = None) -> None:
    """Answer the front end for ever. Beats for the decoding thread `beside` too, if there is one."""
    ipc = Path(supervisor.config.ipc)
    inbox: Inbox[TO_TOKENIZER] = Inbox(ipc, f"tokenizer-{index}", TO_TOKENIZER, supervisor.count_dropped)
    outbox = Outbox(ipc, "frontend")
    supervisor.ready(vocabulary_size=encoder.vocabulary_size, dialect=encoder.dialect)
    while True:
        request = inbox.get(TURN_SECONDS)
        if request is not None:
            outbox.put(encoder.answer(request))
        supervisor.beat(None if beside is None else beside.turned_at)  # the older of the two loops


if __name__ == "__main__":
    run_child(main)
