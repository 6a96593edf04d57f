"""What `helm test` runs in a pod: ask a served model which name it has, then for one completion.

`ask.py URL TIMEOUT_SECONDS`; standard library only. Ends with an error unless text comes back.
"""

# ruff: noqa: S310, T201 (a script that prints, and asks one fixed address)
import json
import sys
import urllib.request

url, timeout = sys.argv[1], float(sys.argv[2])


def call(path, body=None):
    """GET, or POST `body` as JSON; the answer as an object. A status of 400 or more raises."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.load(answer)


name = call("/v1/models")["data"][0]["id"]
print(f"{url} serves {name}")
messages = [{"role": "user", "content": "What is the capital of France?"}]
choice = call("/v1/chat/completions", {"model": name, "messages": messages, "max_tokens": 16})["choices"][0]
print(f"answer: {choice['message']['content']} ({choice['finish_reason']})")
if not choice["message"]["content"]:
    sys.exit("the model answered without text")
