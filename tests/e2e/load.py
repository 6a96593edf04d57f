"""Steady streams from inside the cluster, each failure told. Runs in a pod of the runtime's image
(`python3 -c … URL MODEL STREAMS`): prints a line when the first streams are whole, goes on until its standard input
ends, then prints what it counted.

Half of the streams make a new connection for each request, half keep theirs. Nothing is ever tried a second time.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import httpx

SHORT, LONG = 16, 200  # tokens; every eighth answer is a long one, which is open while its pod is told to stop
PAUSE_SECONDS = 2.0  # between a stream's requests: 640 tokens/s of all, which leaves cores for the pods that start
ANSWER_SECONDS = 60.0


class Load:
    """What the streams ask, and what they met."""

    def __init__(self, url: str, model: str) -> None:
        self.url, self.model = url, model
        self.began = time.monotonic()
        self.whole = self.tokens = 0
        self.longest = 0.0
        self.failures: list[str] = []
        self.runs, self.stop = asyncio.Event(), asyncio.Event()

    async def repeat(self, number: int, client: httpx.AsyncClient) -> None:
        """One request after the other until `stop`."""
        turn = number
        while not self.stop.is_set():
            turn += 1
            began = time.monotonic()
            num_tokens = LONG if turn % 8 == 0 else SHORT
            if failure := await self.ask(client, num_tokens):
                self.failures.append(f"after {time.monotonic() - self.began:.1f} s: {failure}")
            else:
                self.whole, self.tokens = self.whole + 1, self.tokens + num_tokens
                self.longest = max(self.longest, time.monotonic() - began)
            if turn > number + 1 or self.failures:
                self.runs.set()
            await asyncio.sleep(PAUSE_SECONDS)

    async def ask(self, client: httpx.AsyncClient, num_tokens: int) -> str | None:
        """One request. A failure, unless its stream tells a finish reason, all its tokens and its end."""
        body = {"model": self.model, "prompt": "Once upon a time", "max_tokens": num_tokens, "ignore_eos": True}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        finish, usage, last = None, None, ""
        try:
            async with client.stream("POST", f"{self.url}/v1/completions", json=body) as answer:
                if answer.status_code != 200:
                    return f"{answer.status_code} {(await answer.aread())[:300]!r}"
                async for line in answer.aiter_lines():
                    last = line or last
                    if line.startswith("data: {"):
                        event = json.loads(line.removeprefix("data: "))
                        usage = event.get("usage") or usage
                        finish = next((each["finish_reason"] for each in event.get("choices", [])), None) or finish
        except httpx.HTTPError as error:
            return repr(error)
        is_whole = (finish, last) == ("length", "data: [DONE]") and usage and usage["completion_tokens"] == num_tokens
        return None if is_whole else f"a stream of {num_tokens} tokens ended: {last[:300]!r}, {finish=}, {usage=}"


async def main(url: str, model: str, num_streams: int) -> None:
    load = Load(url, model)
    none_kept = httpx.Limits(max_keepalive_connections=0)
    async with (
        httpx.AsyncClient(timeout=ANSWER_SECONDS, limits=none_kept) as fresh,
        httpx.AsyncClient(timeout=ANSWER_SECONDS) as keeping,
    ):
        clients = (fresh, keeping)
        streams = [asyncio.create_task(load.repeat(number, clients[number % 2])) for number in range(num_streams)]
        await load.runs.wait()
        print("running", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        load.stop.set()
        await asyncio.gather(*streams)
    told = {name: getattr(load, name) for name in ("whole", "tokens", "longest", "failures")}
    print(json.dumps(told | {"seconds": time.monotonic() - load.began}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
