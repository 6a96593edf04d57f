"""A front end without processes: the real application and table; a function stands for what is behind the pipes."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np

from minisgl.args import LaunchArgs
from minisgl.messages import TO_SCHEDULER, Abort, Detokenize, Finish, Flush, Generate, Text, Texts, Tokenize, Tokenized
from minisgl.metrics import Metrics
from minisgl.process import Dialect, Heartbeats, Open
from minisgl.server.app import build_app
from minisgl.server.front import Front
from minisgl.server.health import Health
from minisgl.server.requests import RequestTable
from support.fake_scheduler import facts

VOCABULARY = 258


class FrontEnd:
    """`app` answers every prompt with one token; `generated` keeps what the scheduler would get, as it is decoded."""

    def __init__(self, folder: Path, dialect: Dialect | None = None, **args: Any) -> None:
        self.generated: list[Generate] = []
        self.is_silent = False  # true: no generation is answered
        launch = LaunchArgs(model_path="org/name", served_model_name="tiny", **args)
        heartbeats, metrics = Heartbeats(folder, 1), Metrics("tiny", launch.metrics_compat)
        self._table = RequestTable(4, metrics, self._tokenize, self._generate)
        front = Front(launch, Health(heartbeats, ("frontend",), 60), metrics, self._table, created=0)
        heartbeats.beat(0)
        front.learn(Open(facts(4).model_dump(mode="json"), VOCABULARY, {}, dialect or Dialect()))
        front.health.state = "ready"
        self.app: Any = build_app(front)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """One request, through everything but a socket."""

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                return await client.request(method, path, json=body, headers=headers)

        return asyncio.run(send())

    def _tokenize(self, message: Tokenize | Detokenize) -> None:
        self._table.receive(Tokenized(message.uid, np.array([65], "<i4").tobytes()))

    def _generate(self, message: Generate | Abort | Flush) -> None:
        wire = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=TO_SCHEDULER)
        if isinstance(wire, Generate) and not self.is_silent:
            self.generated.append(wire)
            self._table.receive(Texts((Text(wire.uid, "x", 1, 0, finish=Finish.LENGTH),)))
